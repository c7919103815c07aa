//! The macro of `schema.rs`: from the entries it makes the resolved struct, the partial one and the table.

/// Makes from the entries
/// - `GenerationOptions`, a field of the given type each, with `Default`;
/// - `GenerationLayer`, a [`Setting`](crate::Setting) each;
/// - `OPTIONS`, an [`OptionInfo`](crate::OptionInfo) each, in the order of the entries;
/// - all code that must touch every field by its type. All other code works on settings in the order of
///   `OPTIONS`.
macro_rules! schema {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, { $($info:tt)* } )+) => {
        /// How outputs are generated: every option, resolved. [`GenerationOptions::method`] says which method
        /// the options add up to.
        #[derive(Debug, Clone, PartialEq)]
        pub struct GenerationOptions {
            $( $(#[doc = $doc])+ pub $name: $type, )+
        }

        /// The options of one source: a bundle, a job file, or flags.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct GenerationLayer {
            $( $(#[doc = $doc])+ pub $name: $crate::Setting<<$type as $crate::setting::Resolved>::Value>, )+
        }

        /// Every option, in the order of the fields of [`GenerationOptions`].
        #[allow(clippy::needless_update, reason = "most options leave fields out, some do not")]
        pub const OPTIONS: &[$crate::OptionInfo] = &[
            $( $crate::OptionInfo {
                name: stringify!($name),
                help: concat!($($doc, "\n"),+),
                $($info)*
                ..$crate::OptionInfo::PLAIN
            }, )+
        ];

        impl Default for GenerationOptions {
            fn default() -> Self {
                Self { $( $name: $default, )+ }
            }
        }

        impl GenerationOptions {
            /// The options that differ from their defaults.
            #[must_use]
            pub fn said(&self) -> GenerationLayer {
                let default = Self::default();
                GenerationLayer { $( $name: $crate::Setting::of_difference(&self.$name, &default.$name), )+ }
            }

            /// Every option's value, in the order of [`OPTIONS`].
            pub(crate) fn given(&self) -> [$crate::Given; OPTIONS.len()] {
                use $crate::setting::Resolved;
                [ $( self.$name.given_or_null(), )+ ]
            }
        }

        impl GenerationLayer {
            /// The options that the layer sets, and the defaults of all others.
            pub(crate) fn with_defaults(&self) -> GenerationOptions {
                let default = GenerationOptions::default();
                GenerationOptions { $( $name: self.$name.resolve(default.$name), )+ }
            }

            /// In the order of [`OPTIONS`].
            pub(crate) fn settings(&self) -> [&dyn $crate::setting::AnySetting; OPTIONS.len()] {
                [ $( &self.$name, )+ ]
            }

            /// In the order of [`OPTIONS`].
            pub(crate) fn settings_mut(&mut self) -> [&mut dyn $crate::setting::AnySetting; OPTIONS.len()] {
                [ $( &mut self.$name, )+ ]
            }
        }
    };
}
