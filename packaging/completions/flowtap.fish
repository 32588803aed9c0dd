# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_flowtap_global_optspecs
    string join \n q/quiet v/verbose log-file= h/help V/version
end

function __fish_flowtap_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_flowtap_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_flowtap_using_subcommand
    set -l cmd (__fish_flowtap_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c flowtap -n "__fish_flowtap_needs_command" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_needs_command" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_needs_command" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_needs_command" -s h -l help -d 'Print help'
complete -c flowtap -n "__fish_flowtap_needs_command" -s V -l version -d 'Print version'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "read" -d 'Meter capture files: pcap and pcapng, also gzip, zstd and lz4 compressed'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "live" -d 'Meter network interfaces until Ctrl-C or SIGTERM'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "interfaces" -d 'List the interfaces that `live` can capture on'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "print" -d 'Show IPFIX files, of any exporter, as a table, CSV or JSON'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "check-config" -d 'Check a configuration file as `live --config` would read it'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "self-test" -d 'Test that the sandbox of `live` denies what it must'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "generate" -d 'Write the man pages or the shell completions, which are made of these flags'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "list-elements" -d 'List the fields (Information Elements) of exported records'
complete -c flowtap -n "__fish_flowtap_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l interface -d 'Number the interface (ingressInterface) [default: pcapng\'s, else 0]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l config -d 'A TOML file of these flags, without their dashes; a flag given here wins' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l to -d 'Where the records go, repeatable; --help lists the forms [default: table:-]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l active-timeout -d 'Report a flow at the latest this long after its first packet' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l idle-timeout -d 'End a flow that had no packet for this long; 0 gives each packet a record of its own' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l tcp-linger -d 'Wait this long for stragglers after a FIN or RST; 0 ends the flow at once' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l max-flows -d 'Flows open at once; where there are more, the one nearest its end makes room' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l filter -d 'Meter only the frames that this BPF expression selects' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l shards -d 'Metering threads; 0 does everything on one thread [default: by the machine]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l observation-domain -d 'Observation Domain of the flows (NetFlow v9: Source ID)' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l template-refresh -d 'Over UDP, send the templates again after this long' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l template-refresh-messages -d 'Over UDP, send the templates again after this many messages' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l statistics-interval -d 'Send records of the exporter\'s own statistics this often' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l mtu -d 'Over UDP, the longest packet, IP header included [default: the path\'s, at most 1500]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l export-rate -d 'Over UDP, from files, at most so many messages a second; 0: no limit [default: 4000]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l summary -d 'How the run is summed up, on standard error' -r -f -a "text\t'A few lines for a person'
json\t'One line of JSON'
none\t'Nothing'"
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l top -d 'Show the N source addresses that sent most, instead of the flows' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l by -d 'With --top: what counts [default: octets]' -r -f -a "octets\t'Octets sent'
packets\t'Packets sent'
flows\t'Flow records'"
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -l utc -d 'In tables, times in UTC, not in local time'
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand read" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -s i -l interface -d 'The interfaces to capture on, repeatable or with commas between; `any` for all' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l capture-threads -d 'Threads that share the work of each interface, conversation by conversation' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l snaplen -d 'Octets to capture of each frame' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l promiscuous -d 'Whether to capture frames for other hosts, too' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l buffer -d 'Size of the kernel\'s ring, for each capture thread: 16M, 1G' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l write -d 'Also write the frames to this pcap file (pcapng if it ends in .pcapng), each cut at the snaplen; `-` is standard output; interfaces of several link types take pcapng. Metering waits for the reader of a pipe' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l metrics -d 'Serve /metrics, /status and /health over HTTP, on 127.0.0.1:9469 unless told otherwise' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l user -d 'The user that root becomes once all is open [default: flowtap, else nobody]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l sandbox -d 'Whether to give up, once all is open, the rights no longer needed' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l config -d 'A TOML file of these flags, without their dashes; a flag given here wins' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l to -d 'Where the records go, repeatable; --help lists the forms [default: table:-]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l active-timeout -d 'Report a flow at the latest this long after its first packet' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l idle-timeout -d 'End a flow that had no packet for this long; 0 gives each packet a record of its own' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l tcp-linger -d 'Wait this long for stragglers after a FIN or RST; 0 ends the flow at once' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l max-flows -d 'Flows open at once; where there are more, the one nearest its end makes room' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l filter -d 'Meter only the frames that this BPF expression selects' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l shards -d 'Metering threads; 0 does everything on one thread [default: by the machine]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l observation-domain -d 'Observation Domain of the flows (NetFlow v9: Source ID)' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l template-refresh -d 'Over UDP, send the templates again after this long' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l template-refresh-messages -d 'Over UDP, send the templates again after this many messages' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l statistics-interval -d 'Send records of the exporter\'s own statistics this often' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l mtu -d 'Over UDP, the longest packet, IP header included [default: the path\'s, at most 1500]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l export-rate -d 'Over UDP, from files, at most so many messages a second; 0: no limit [default: 4000]' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l summary -d 'How the run is summed up, on standard error' -r -f -a "text\t'A few lines for a person'
json\t'One line of JSON'
none\t'Nothing'"
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l top -d 'Show the N source addresses that sent most, instead of the flows' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l by -d 'With --top: what counts [default: octets]' -r -f -a "octets\t'Octets sent'
packets\t'Packets sent'
flows\t'Flow records'"
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l meter-own-export -d 'Meter this host\'s own export, too, where it passes a captured interface'
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -l utc -d 'In tables, times in UTC, not in local time'
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand live" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c flowtap -n "__fish_flowtap_using_subcommand interfaces" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand interfaces" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand interfaces" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand interfaces" -s h -l help -d 'Print help'
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -l to -d 'table:PATH, csv:PATH or json:PATH; PATH `-` is standard output' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -l top -d 'Show the N source addresses that sent most, instead of the flows' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -l by -d 'With --top: what counts [default: octets]' -r -f -a "octets\t'Octets sent'
packets\t'Packets sent'
flows\t'Flow records'"
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -l utc -d 'In tables, times in UTC, not in local time'
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand print" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c flowtap -n "__fish_flowtap_using_subcommand check-config" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand check-config" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand check-config" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand check-config" -s h -l help -d 'Print help'
complete -c flowtap -n "__fish_flowtap_using_subcommand self-test" -l user -d 'The user to become, as in `live`' -r
complete -c flowtap -n "__fish_flowtap_using_subcommand self-test" -l inside -d 'The child\'s part: enter the sandbox and try, writing in this folder' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand self-test" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand self-test" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand self-test" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand self-test" -s h -l help -d 'Print help'
complete -c flowtap -n "__fish_flowtap_using_subcommand generate" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand generate" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand generate" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand generate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c flowtap -n "__fish_flowtap_using_subcommand list-elements" -l log-file -d 'Write the log to this file, not to standard error; SIGHUP opens it again' -r -F
complete -c flowtap -n "__fish_flowtap_using_subcommand list-elements" -l markdown -d 'As a Markdown table'
complete -c flowtap -n "__fish_flowtap_using_subcommand list-elements" -s q -l quiet -d 'Say nothing but errors: no warnings, no progress, no summary'
complete -c flowtap -n "__fish_flowtap_using_subcommand list-elements" -s v -l verbose -d 'Log more: what begins and what recovers; -vv: each capture thread, too'
complete -c flowtap -n "__fish_flowtap_using_subcommand list-elements" -s h -l help -d 'Print help'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "read" -d 'Meter capture files: pcap and pcapng, also gzip, zstd and lz4 compressed'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "live" -d 'Meter network interfaces until Ctrl-C or SIGTERM'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "interfaces" -d 'List the interfaces that `live` can capture on'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "print" -d 'Show IPFIX files, of any exporter, as a table, CSV or JSON'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "check-config" -d 'Check a configuration file as `live --config` would read it'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "self-test" -d 'Test that the sandbox of `live` denies what it must'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "generate" -d 'Write the man pages or the shell completions, which are made of these flags'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "list-elements" -d 'List the fields (Information Elements) of exported records'
complete -c flowtap -n "__fish_flowtap_using_subcommand help; and not __fish_seen_subcommand_from read live interfaces print check-config self-test generate list-elements help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
