#!/usr/bin/env bash
# Records the captures in this folder anew, from real programs in network namespaces of their own.
#
#   sudo pcaps/record.sh                                  record all (about 90 s), then say what was recorded
#   FLOWTAP_ORACLE=flows.py pcaps/record.sh --expect      make the expected flows of the captures that are there
#
# FLOWTAP_ORACLE names a reference meter that is not flowtap: a Python program that reads one capture file and prints
# the records as CSV. With it set, the first form makes the expected flows as well; without it they are out of date
# afterwards, and the script says so.
#
# Needs Linux with network namespaces, veth and tun, root, and the Debian packages
#   iproute2 ethtool tcpdump tshark wireshark-common curl bind9-dnsutils iputils-ping nmap openssl
#   openssh-server openssh-client python3
#
# Three namespaces and nothing else: office -- router -- server, and a trunk from office to server for the VLANs. No
# packet leaves them. At the end, whatever it was, the processes started here are ended by their ids, the namespaces
# and the temporary directory are removed.
set -euo pipefail
cd "$(dirname "$0")"
TMP=$(mktemp -d)
trap 'rm -r "$TMP"' EXIT

OFFICE=flowtap-office ROUTER=flowtap-router SERVER=flowtap-server
OFFICE4=192.0.2.10     OFFICE6=2001:db8:1::10
SERVER4=198.51.100.80  SERVER6=2001:db8:2::80
SLOW=8081                             # the slow transfer runs beside all else, so the others leave this port out
NAMES=(ping dns web-http web-https ssh refused scan-syn scan-fin scan-null half-close port-reuse active-timeout
       fragments vlan qinq cooked offload office)

# ---------------------------------------------------------------- expected flows
file_of() { local f; for f in "$1.pcap" "$1.pcapng" "$1.pcap.gz"; do [ ! -e "$f" ] || echo "$f"; done; }

expect() {
    local name file plain ip sum bad=0
    for name in "${NAMES[@]}"; do
        file=$(file_of "$name") plain=$file
        case $file in *.gz) plain=$TMP/plain.pcap; gunzip -c "$file" >"$plain" ;; esac
        python3 "$FLOWTAP_ORACLE" "$plain" >"$name.flows.csv" 2>"$TMP/counts"
        # a second opinion: tshark must find as many IP frames as the records hold packets
        ip=$(tshark -n -r "$plain" -Y 'ip or ipv6' 2>/dev/null | wc -l)
        sum=$(awk -F, 'NR > 1 { n += $6 } END { print n + 0 }' "$name.flows.csv")
        [ "$ip" = "$sum" ] || { echo "$name: $ip IP frames, but $sum packets in the records" >&2; bad=1; }
    done
    return $bad
}

summary() {
    local name file frames
    printf '%-22s %7s %7s %8s\n' file frames flows bytes
    for name in "${NAMES[@]}"; do
        file=$(file_of "$name")
        frames=$(tshark -n -r "$file" 2>/dev/null | wc -l)
        printf '%-22s %7d %7d %8d\n' "$file" "$frames" $(($(wc -l <"$name.flows.csv") - 1)) "$(stat -c %s "$file")"
    done
}

if [ "${1:-}" = --expect ]; then
    [ -n "${FLOWTAP_ORACLE:-}" ] || { echo "$0: --expect needs FLOWTAP_ORACLE" >&2; exit 2; }
    expect
    summary
    exit
elif [ $# -gt 0 ]; then
    sed -n '2,/^set/{s/^# \?//p}' "$0"
    exit 2
fi

# ---------------------------------------------------------------- namespaces
[ "$(id -u)" = 0 ] || { echo "$0: needs root, for the namespaces" >&2; exit 1; }
for tool in ip ethtool tcpdump tshark editcap mergecap curl dig ping nmap openssl sshd ssh ssh-keygen python3; do
    command -v "$tool" >/dev/null || { echo "$0: $tool is missing; the packages are named at the top" >&2; exit 1; }
done
for ns in $OFFICE $ROUTER $SERVER; do
    [ ! -e "/run/netns/$ns" ] || { echo "$0: namespace $ns exists already; another run?" >&2; exit 1; }
done

declare -A PIDS=()                    # what runs in the background; an id leaves when it has been waited for
MADE=()
finish() {
    local status=$?
    set +e
    trap - EXIT INT TERM
    [ ${#PIDS[@]} = 0 ] || { kill "${!PIDS[@]}"; wait "${!PIDS[@]}"; } 2>/dev/null
    for ns in "${MADE[@]}"; do ip netns del "$ns"; done
    rm -rf "$TMP"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

# What goes on in the background is started without these, so that $! is its own id; timeout ends it in any case.
on() { local ns=$1; shift; ip netns exec "$ns" "$@"; }
office() { on $OFFICE timeout 120 "$@"; }

for ns in $OFFICE $ROUTER $SERVER; do
    ip netns add $ns
    MADE+=($ns)
    on $ns sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.accept_dad=0 \
        net.ipv6.conf.default.router_solicitations=0 net.ipv6.conf.default.accept_ra=0
    ip -n $ns link set lo up
done
on $ROUTER sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

# cable NS INTERFACE MAC  NS INTERFACE MAC: the MACs are the ones for documentation
cable() {
    ip -n "$1" link add "$2" address "$3" type veth peer name "$5" address "$6" netns "$4"
    wire_like "$1" "$2"
    wire_like "$4" "$5"
}
# frames as on a wire: whole checksums, nothing longer than the MTU, tags inside
wire_like() {
    on "$1" ethtool -K "$2" tso off gso off gro off tx off rx off sg off txvlan off rxvlan off >"$TMP/ethtool" 2>&1 || true
    ip -n "$1" link set "$2" up
}
# host NS INTERFACE MAC ADDRESS/LEN...
host() {
    local ns=$1 dev=$2 a; shift 2
    for a in "$@"; do
        case $a in *:*) ip -n "$ns" addr add "$a" dev "$dev" nodad ;; *) ip -n "$ns" addr add "$a" dev "$dev" ;; esac
    done
}
# knows NS INTERFACE MAC ADDRESS...: a neighbour for good, so that captures hold no ARP unless they mean to
knows() { local ns=$1 dev=$2 mac=$3 a; shift 3; for a in "$@"; do ip -n "$ns" neigh replace "$a" lladdr "$mac" dev "$dev" nud permanent; done; }

M=00:00:5e:00:53
cable $OFFICE eth0 $M:10 $ROUTER lan $M:01
cable $ROUTER dmz $M:02 $SERVER eth0 $M:80
cable $OFFICE trunk0 $M:21 $SERVER trunk0 $M:22
ip -n $OFFICE link set trunk0 mtu 1508
ip -n $SERVER link set trunk0 mtu 1508
host $OFFICE eth0 $OFFICE4/25 $OFFICE6/64
host $ROUTER lan 192.0.2.1/25 2001:db8:1::1/64
host $ROUTER dmz 198.51.100.1/25 2001:db8:2::1/64
host $SERVER eth0 $SERVER4/25 $SERVER6/64
ip -n $OFFICE route add default via 192.0.2.1
ip -n $OFFICE -6 route add default via 2001:db8:1::1
ip -n $SERVER route add default via 198.51.100.1
ip -n $SERVER -6 route add default via 2001:db8:2::1
lan_neighbours() {
    knows $OFFICE eth0 $M:01 192.0.2.1 2001:db8:1::1
    knows $ROUTER lan $M:10 $OFFICE4 $OFFICE6
}
lan_neighbours
knows $ROUTER dmz $M:80 $SERVER4 $SERVER6
knows $SERVER eth0 $M:02 198.51.100.1 2001:db8:2::1

# ---------------------------------------------------------------- servers
# serve NS ARG...: peers.py in the background; returns when it is ready
serve() {
    local ns=$1 n=${#PIDS[@]}; shift
    ip netns exec "$ns" timeout 300 python3 peers.py "$@" >"$TMP/out.$n" 2>"$TMP/err.$n" &
    PIDS[$!]=peer
    for _ in $(seq 100); do grep -qs ready "$TMP/out.$n" && return; sleep 0.1; done
    echo "$0: peers.py $* did not start" >&2; cat "$TMP/err.$n" >&2; return 1
}

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=www.example.com -addext subjectAltName=DNS:www.example.com \
    -keyout "$TMP/key.pem" -out "$TMP/cert.pem" 2>"$TMP/openssl"
serve $SERVER web 80
serve $SERVER web 443 "$TMP/cert.pem" "$TMP/key.pem"
serve $SERVER web $SLOW
serve $SERVER dns 53
serve $SERVER sink 9000

# tagged TAG_NAME NET4 NET6 MACS TAG...: a TAP at either end of the trunk, behind these tags
tagged() {
    local dev=$1 net4=$2 net6=$3 x=$4; shift 4
    serve $OFFICE vlan trunk0 "$dev" "$M:${x}1" "$@"
    serve $SERVER vlan trunk0 "$dev" "$M:${x}2" "$@"
    host $OFFICE "$dev" "${net4}.$((16#${x}0 + 1))/28" "$net6::1/64"
    host $SERVER "$dev" "${net4}.$((16#${x}0 + 2))/28" "$net6::2/64"
    ip -n $OFFICE link set "$dev" up
    ip -n $SERVER link set "$dev" up
    knows $OFFICE "$dev" "$M:${x}2" "${net4}.$((16#${x}0 + 2))" "$net6::2"
    knows $SERVER "$dev" "$M:${x}1" "${net4}.$((16#${x}0 + 1))" "$net6::1"
}
tagged vlan10 192.0.2 2001:db8:10 a q:10                  # 192.0.2.161 and .162
tagged vlan20 192.0.2 2001:db8:20 b q:20                  # 192.0.2.177 and .178
tagged qinq   198.51.100 2001:db8:100 c ad:100 q:10       # 198.51.100.193 and .194

SSH_PORT=22
ssh-keygen -q -t ed25519 -N '' -C flowtap -f "$TMP/host_key"
ssh-keygen -q -t ed25519 -N '' -C flowtap -f "$TMP/user_key"
cat >"$TMP/sshd_config" <<CONFIG
Port $SSH_PORT
HostKey $TMP/host_key
AuthorizedKeysFile $TMP/user_key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
CONFIG
ip netns exec $SERVER sh -c "mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec timeout 300 $(command -v sshd) -D -e -f $TMP/sshd_config" 2>"$TMP/sshd" &
PIDS[$!]=sshd

sleep 5                               # until the kernels have done announcing their addresses

# ---------------------------------------------------------------- captures
NS= PID= OUT=
# start NS INTERFACE FILE TCPDUMP-ARGUMENT...: returns when tcpdump listens
start() {
    local ns=$1 dev=$2; OUT=$3; shift 3
    ip netns exec "$ns" timeout 300 tcpdump -n -i "$dev" -Z root --immediate-mode -U -w "$TMP/$OUT" "$@" 2>"$TMP/$OUT.log" &
    PID=$!
    PIDS[$PID]=tcpdump
    for _ in $(seq 100); do grep -q listening "$TMP/$OUT.log" && return; sleep 0.05; done
    echo "$0: tcpdump did not start" >&2; cat "$TMP/$OUT.log" >&2; return 1
}
stop_pid() {
    local out=$2
    sleep 0.5
    kill "$1"
    wait "$1" || true
    unset "PIDS[$1]"
    grep -q '^0 packets dropped by kernel' "$TMP/$out.log" || { echo "$0: $out lost packets" >&2; return 1; }
}
stop() { stop_pid $PID "$OUT"; }
lan() { start $ROUTER lan "$@" "not tcp port $SLOW"; }
keep() { local f; for f in "$@"; do cp "$TMP/$f" "$f"; done; }

get() { office curl -sS --max-time 100 "$@" >/dev/null; }
later() { sleep 1.3; office ping -q -c 1 $SERVER4 >/dev/null; }   # a packet that moves the clock past the linger

echo "recording"
# active-timeout: 68 s, in the background while the others are recorded
start $ROUTER lan active-timeout.pcap "tcp port $SLOW"
SLOW_PID=$PID
ip netns exec $OFFICE curl -sS --max-time 100 http://$SERVER4:$SLOW/slow >/dev/null & SLOW4=$!
ip netns exec $OFFICE curl -sS --max-time 100 "http://[$SERVER6]:$SLOW/slow" >/dev/null & SLOW6=$!
PIDS[$SLOW4]=curl PIDS[$SLOW6]=curl

# ping: nobody knows a neighbour, so ARP and neighbour discovery come first; then networks the router has no route to
lan ping.pcap --time-stamp-precision=nano
ip -n $OFFICE neigh del 192.0.2.1 dev eth0; ip -n $OFFICE neigh del 2001:db8:1::1 dev eth0
ip -n $ROUTER neigh del $OFFICE4 dev lan;   ip -n $ROUTER neigh del $OFFICE6 dev lan
office ping -q -c 3 -i 0.2 $SERVER4 >/dev/null
office ping -q -c 3 -i 0.2 $SERVER6 >/dev/null
office ping -q -c 1 -W 1 198.51.100.130 >/dev/null || true
office ping -q -c 1 -W 1 2001:db8:dead::1 >/dev/null || true
stop
lan_neighbours
keep ping.pcap

lan dns.pcap
for server in $SERVER4 $SERVER6; do
    office dig @$server www.example.com A >/dev/null
    office dig @$server www.example.com AAAA >/dev/null
    office dig @$server nowhere.example.net A >/dev/null
    office dig @$server +tcp www.example.com A >/dev/null
done
stop
gzip -9n "$TMP/dns.pcap"
keep dns.pcap.gz

lan web-http.pcap
get http://$SERVER4/ http://$SERVER4/20000            # one connection for both
sleep 1.3
get "http://[$SERVER6]/" "http://[$SERVER6]/20000"
stop
keep web-http.pcap

lan web-https.pcap
for server in $SERVER4 "[$SERVER6]"; do
    get --cacert "$TMP/cert.pem" --resolve "www.example.com:443:$server" https://www.example.com/20000
    sleep 1.3
done
stop
editcap -F pcapng "$TMP/web-https.pcap" "$TMP/web-https.pcapng"
keep web-https.pcapng

lan ssh.pcap -s 96
for server in $SERVER4 $SERVER6; do
    office ssh -F none -p $SSH_PORT -i "$TMP/user_key" -o BatchMode=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile="$TMP/known" -o LogLevel=ERROR root@$server 'seq 1000; sleep 0.5; echo done' >/dev/null
done
stop
keep ssh.pcap

lan refused.pcap
for server in $SERVER4 "[$SERVER6]"; do get http://$server:8080/ 2>/dev/null || true; done
for server in $SERVER4 $SERVER6; do office dig @$server -p 5353 +tries=1 +time=1 www.example.com >/dev/null || true; done
stop
keep refused.pcap

for kind in S:syn F:fin N:null; do
    lan scan-${kind#*:}.pcap
    for server in "$SERVER4" "-6 $SERVER6"; do
        # shellcheck disable=SC2086
        office nmap -s${kind%:*} -Pn -n -p 23,25,80,110,443,8080 --max-retries 1 --host-timeout 20s $server >/dev/null
    done
    later
    stop
    keep scan-${kind#*:}.pcap
done

lan half-close.pcap
for server in $SERVER4 $SERVER6; do office python3 peers.py half-close $server 9000; done
later
stop
keep half-close.pcap

lan port-reuse.pcap
for server in $SERVER4 "[$SERVER6]"; do
    get --local-port 40000 http://$server/until-close
    get --local-port 40000 http://$server/until-close
done
later
stop
keep port-reuse.pcap

lan fragments.pcap
for server in $SERVER4 $SERVER6; do
    office ping -q -c 2 -i 0.2 -s 3000 $server >/dev/null
    office dig @$server +bufsize=4096 long.example.com TXT >/dev/null     # an answer of 3.3 kB over UDP
done
stop
keep fragments.pcap

start $SERVER trunk0 vlan.pcap
get http://192.0.2.162/3000 'http://[2001:db8:10::2]/3000'
office ping -q -c 2 -i 0.2 192.0.2.178 >/dev/null
office ping -q -c 2 -i 0.2 2001:db8:20::2 >/dev/null
stop
keep vlan.pcap

start $SERVER trunk0 qinq.pcap
get http://198.51.100.194/3000 'http://[2001:db8:100::2]/3000'
office ping -q -c 2 -i 0.2 198.51.100.194 >/dev/null
office ping -q -c 2 -i 0.2 2001:db8:100::2 >/dev/null
stop
keep qinq.pcap

start $SERVER any cooked.pcap "not tcp port $SLOW"
for server in $SERVER4 $SERVER6; do
    office ping -q -c 2 -i 0.2 $server >/dev/null
    office dig @$server www.example.com A >/dev/null
done
get http://$SERVER4/ "http://[$SERVER6]/"
stop
keep cooked.pcap

echo "waiting for the slow transfer"
wait $SLOW4 $SLOW6
unset "PIDS[$SLOW4]" "PIDS[$SLOW6]"
stop_pid $SLOW_PID active-timeout.pcap
keep active-timeout.pcap

# offload: the office's own interface, which hands itself segments longer than the MTU and checksums not yet made
for x in "$OFFICE eth0" "$ROUTER lan" "$ROUTER dmz" "$SERVER eth0"; do
    # shellcheck disable=SC2086
    set -- $x; on "$1" ethtool -K "$2" rx on tx on sg on tso on gso on gro on >"$TMP/ethtool" 2>&1 || true
done
start $OFFICE eth0 offload.pcap -s 96
get http://$SERVER4/300000 "http://[$SERVER6]/300000"
stop
keep offload.pcap

# office: one capture with a bit of everything that is Ethernet, merged by time
mergecap -F pcap -w office.pcap ping.pcap dns.pcap.gz web-http.pcap web-https.pcapng ssh.pcap refused.pcap \
    scan-syn.pcap scan-fin.pcap scan-null.pcap half-close.pcap port-reuse.pcap active-timeout.pcap fragments.pcap \
    vlan.pcap qinq.pcap

if [ -n "${FLOWTAP_ORACLE:-}" ]; then expect; else echo "FLOWTAP_ORACLE is not set: *.flows.csv are out of date" >&2; fi
summary
