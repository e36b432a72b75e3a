//! Durations as text: a whole number and a unit, `900s`, `15m`, `500ms`, `2h`.

use std::time::Duration;

use crate::text::{ValueError, show};

/// Reads a duration such as `900s`.
///
/// Units: `ms`, `s`, `m` (60 s), `h` (3600 s). The range of timeouts is not checked here.
/// Errors: the text is no whole number with one of the units, or does not fit 64 bits of milliseconds.
pub fn parse(text: &str) -> Result<Duration, ValueError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    if number.is_empty() || unit_ms == 0 {
        return Err(ValueError(format!(
            "{} is not a duration: use a whole number and ms, s, m or h, such as \"900s\"",
            show(text)
        )));
    }
    let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| ValueError(format!("{} is too long a duration", show(text))))
}

/// Writes a duration so that [`parse`] reads it back: whole seconds as `900s`, else `1500ms`.
///
/// What is below a millisecond is cut off; a checked [`crate::Model`] has no such timeout.
pub fn format(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        let read = |text| parse(text).map(|d| d.as_millis()).map_err(|e| e.to_string());
        assert_eq!(read("500ms"), Ok(500));
        assert_eq!(read("900s"), Ok(900_000));
        assert_eq!(read("15m"), Ok(900_000));
        assert_eq!(read("2h"), Ok(7_200_000));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "900", "9 s", "-1s", "1.5s", "1d", "1s1ms", "٣s", "900S"] {
            let want = format!(
                "\"{text}\" is not a duration: use a whole number and ms, s, m or h, such as \"900s\""
            );
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(want));
        }
        let huge = "99999999999999999999h";
        assert_eq!(parse(huge).map_err(|e| e.to_string()), Err(format!("\"{huge}\" is too long a duration")));
        assert!(parse("18446744073709551615h").is_err(), "an overflow in the unit is seen");
    }

    #[test]
    fn whole_seconds_are_written_as_seconds() {
        assert_eq!(format(Duration::from_secs(900)), "900s");
        assert_eq!(format(Duration::from_millis(1500)), "1500ms");
    }
}
