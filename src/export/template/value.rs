//! The values of fields: a number or an address in, its octets on the wire out (RFC 7011 §6.1).

/// The value of a field as it stands on the wire: a number in network byte order, an address as it is.
pub(super) trait Value {
    /// Its octets on the wire, as many as it has.
    type Octets: AsRef<[u8]> + Copy;

    /// How many octets it begins with are 0 whatever the value.
    const ZEROS: usize = 0;

    /// The octets.
    fn octets(&self) -> Self::Octets;
}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        impl Value for $number {
            type Octets = [u8; size_of::<$number>()];

            #[inline(always)]
            fn octets(&self) -> Self::Octets {
                self.to_be_bytes()
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 }

impl<const LENGTH: usize> Value for [u8; LENGTH] {
    type Octets = [u8; LENGTH];

    #[inline(always)]
    fn octets(&self) -> [u8; LENGTH] {
        *self
    }
}

/// A number of 32 bits in a field of 64.
pub(super) struct Widened(pub(super) u32);

impl Value for Widened {
    type Octets = [u8; 8];

    const ZEROS: usize = 4;

    #[inline(always)]
    fn octets(&self) -> [u8; 8] {
        u64::from(self.0).to_be_bytes()
    }
}

/// A field of so many octets that is always 0.
pub(super) struct Zero<const LENGTH: usize>;

impl<const LENGTH: usize> Value for Zero<LENGTH> {
    type Octets = [u8; LENGTH];

    const ZEROS: usize = LENGTH;

    #[inline(always)]
    fn octets(&self) -> [u8; LENGTH] {
        [0; LENGTH]
    }
}
