//! One layer's setting of one option, and the types of options.

use crate::{EarlyStopping, Given, Markup, OtherLanguage, QualityColumns, ReaderContext};

/// A layer's setting of an option.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Setting<T> {
    /// Not set: lower layers decide.
    #[default]
    Unset,
    /// The default, whatever lower layers set.
    Cleared,
    /// A value.
    To(T),
}

/// A type that an option's value has.
pub trait Value: Clone + PartialEq {
    /// The value, if it is of this type.
    fn of(given: &Given) -> Option<Self>;
    /// The same value, in written form.
    fn given(&self) -> Given;
}

/// A type that an option has once it is resolved: a value, or one that may be absent.
pub trait Resolved: PartialEq {
    type Value: Value;
    fn of(value: Self::Value) -> Self;
    fn value(&self) -> Option<Self::Value>;

    /// The written form; null if absent.
    fn given_or_null(&self) -> Given {
        self.value().map_or(Given::Null, |value| value.given())
    }
}

impl<T: Value> Resolved for T {
    type Value = T;

    fn of(value: T) -> Self {
        value
    }

    fn value(&self) -> Option<T> {
        Some(self.clone())
    }
}

impl<T: Value> Resolved for Option<T> {
    type Value = T;

    fn of(value: T) -> Self {
        Some(value)
    }

    fn value(&self) -> Option<T> {
        self.clone()
    }
}

impl<T: Value> Setting<T> {
    /// Sets the value if it differs from the default.
    pub(crate) fn of_difference<R: Resolved<Value = T>>(resolved: &R, default: &R) -> Self {
        match resolved.value() {
            Some(value) if resolved != default => Self::To(value),
            _ => Self::Unset,
        }
    }

    pub(crate) fn resolve<R: Resolved<Value = T>>(&self, default: R) -> R {
        match self {
            Self::To(value) => R::of(value.clone()),
            Self::Unset | Self::Cleared => default,
        }
    }
}

/// A setting of any type.
pub(crate) trait AnySetting {
    fn is_unset(&self) -> bool;
    fn is_cleared(&self) -> bool;
    /// The value that it is set to.
    fn given(&self) -> Option<Given>;
    fn unset(&mut self);
    fn clear(&mut self);
    /// Whether the value is of its type; if not, nothing changes.
    fn set(&mut self, given: &Given) -> bool;
}

impl<T: Value> AnySetting for Setting<T> {
    fn is_unset(&self) -> bool {
        *self == Self::Unset
    }

    fn is_cleared(&self) -> bool {
        *self == Self::Cleared
    }

    fn given(&self) -> Option<Given> {
        match self {
            Self::To(value) => Some(value.given()),
            Self::Unset | Self::Cleared => None,
        }
    }

    fn unset(&mut self) {
        *self = Self::Unset;
    }

    fn clear(&mut self) {
        *self = Self::Cleared;
    }

    fn set(&mut self, given: &Given) -> bool {
        let value = T::of(given).map(Self::To);
        let is_of_type = value.is_some();
        *self = value.unwrap_or(std::mem::take(self));
        is_of_type
    }
}

impl Value for bool {
    fn of(given: &Given) -> Option<Self> {
        if let Given::Truth(truth) = given { Some(*truth) } else { None }
    }

    fn given(&self) -> Given {
        Given::Truth(*self)
    }
}

impl Value for u32 {
    fn of(given: &Given) -> Option<Self> {
        if let Given::Integer(integer) = given { Self::try_from(*integer).ok() } else { None }
    }

    fn given(&self) -> Given {
        Given::Integer((*self).into())
    }
}

impl Value for u64 {
    fn of(given: &Given) -> Option<Self> {
        if let Given::Integer(integer) = given { Self::try_from(*integer).ok() } else { None }
    }

    fn given(&self) -> Given {
        Given::Integer((*self).into())
    }
}

impl Value for f64 {
    fn of(given: &Given) -> Option<Self> {
        match given {
            Given::Integer(integer) => Some(*integer as f64),
            Given::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn given(&self) -> Given {
        Given::Number(*self)
    }
}

/// Kinds that are written by name.
macro_rules! named_values {
    ($($kind:ty),+) => {
        $(impl Value for $kind {
            fn of(given: &Given) -> Option<Self> {
                if let Given::Text(name) = given { Self::named(name) } else { None }
            }

            fn given(&self) -> Given {
                Given::Text(self.as_str().to_owned())
            }
        })+
    };
}

impl Value for String {
    fn of(given: &Given) -> Option<Self> {
        if let Given::Text(text) = given { Some(text.clone()) } else { None }
    }

    fn given(&self) -> Given {
        Given::Text(self.clone())
    }
}

named_values!(EarlyStopping, Markup, OtherLanguage, QualityColumns, ReaderContext);

impl Value for Vec<String> {
    fn of(given: &Given) -> Option<Self> {
        if let Given::Texts(texts) = given { Some(texts.clone()) } else { None }
    }

    fn given(&self) -> Given {
        Given::Texts(self.clone())
    }
}
