//! A whole number in a file.

use std::io::Read;

use lb_config::health::{FileCheck, FileMeaning};

use super::{Failure, Outcome, Say};

/// Most of a file that is read, bytes: a number and some white space.
const LENGTH: u64 = 64;

pub(super) async fn check(file: &FileCheck) -> Result<Outcome, Failure> {
    let path = file.path.clone();
    let read = move || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LENGTH).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = tokio::task::spawn_blocking(read).await.map_err(|error| Failure(error.to_string()))??;
    judge(file, &text)
}

fn judge(file: &FileCheck, text: &str) -> Result<Outcome, Failure> {
    let text = text.trim();
    let number: i64 = text.parse().map_err(|_| Failure(format!("{text:?} is not a whole number")))?;
    let why = format!("it says {number}");
    let say = match file.meaning {
        FileMeaning::State if number == 0 => Say::Nothing,
        FileMeaning::Reverse if number != 0 => Say::Nothing,
        FileMeaning::State | FileMeaning::Reverse => return Err(Failure(why)),
        FileMeaning::Weight => match u32::try_from(number) {
            Ok(weight) => Say::Weight(weight.min(65_535)),
            Err(_) => return Err(Failure(why)),
        },
        FileMeaning::Offset => Say::Offset(number.saturating_mul(i64::from(file.factor))),
    };
    Ok(Outcome::Pass { why, say })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_what_is_configured() {
        let said = |meaning, text: &str| {
            let file = FileCheck { path: "/x".into(), meaning, factor: -3 };
            match judge(&file, text) {
                Ok(Outcome::Pass { say, .. }) => Ok(say),
                Ok(Outcome::Fail { why }) | Err(Failure(why)) => Err(why),
            }
        };
        assert_eq!(said(FileMeaning::State, " 0\n"), Ok(Say::Nothing));
        assert_eq!(said(FileMeaning::State, "1"), Err("it says 1".into()));
        assert_eq!(said(FileMeaning::Reverse, "0"), Err("it says 0".into()));
        assert_eq!(said(FileMeaning::Reverse, "-1"), Ok(Say::Nothing));
        assert_eq!(said(FileMeaning::Weight, "17"), Ok(Say::Weight(17)));
        assert_eq!(said(FileMeaning::Weight, "-1"), Err("it says -1".into()));
        assert_eq!(said(FileMeaning::Offset, "5"), Ok(Say::Offset(-15)));
        assert_eq!(said(FileMeaning::Offset, "five"), Err("\"five\" is not a whole number".into()));
    }
}
