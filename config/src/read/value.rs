//! Single values: TOML's types to ours. Each error is the message of a fault.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use crate::bounds::Bounds;
use crate::duration;
use crate::ifaddr::parse_ip;
use crate::text::{ValueError, show};

/// "expected WANT, found WHAT IT IS"
pub(super) fn wrong_type(want: &str, value: &DeValue<'_>) -> String {
    let found = match value {
        DeValue::String(text) => format!("the text {}", show(text)),
        DeValue::Integer(number) => format!("the number {}", cut(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", cut(number.as_str())),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    format!("expected {want}, found {found}")
}

/// A number's digits, at most 40 of them (128 bits have 39).
fn cut(digits: &str) -> String {
    match digits.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &digits[..end]),
        None => digits.to_owned(),
    }
}

/// A text.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        other => Err(wrong_type("text in quotes", other)),
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| wrong_type("true or false", value))
}

/// A whole number inside `bounds`.
pub(super) fn integer<T: TryFrom<u32>>(bounds: Bounds) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let DeValue::Integer(number) = value else {
            return Err(wrong_type("a whole number", value));
        };
        let digits = number.as_str();
        let above = || format!("{} is above the limit {}", cut(digits), bounds.max);
        let Ok(wide) = i128::from_str_radix(digits, number.radix()) else {
            return Err(match digits.starts_with('-') {
                true => format!("{} is below the limit {}", cut(digits), bounds.min),
                false => above(),
            });
        };
        T::try_from(bounds.check(wide)?).map_err(|_| above())
    }
}

/// A text with a syntax of its own.
pub(super) fn parsed<T: FromStr<Err = ValueError>>(value: &DeValue<'_>) -> Result<T, String> {
    text(value)?.parse().map_err(|e: ValueError| e.to_string())
}

/// An address of either family.
pub(super) fn ip(value: &DeValue<'_>) -> Result<IpAddr, String> {
    parse_ip(&text(value)?).map_err(|e| e.to_string())
}

/// A duration such as `"900s"`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match value {
        DeValue::String(text) => duration::parse(text).map_err(|e| e.to_string()),
        other => Err(wrong_type("a duration in quotes, such as \"900s\"", other)),
    }
}
