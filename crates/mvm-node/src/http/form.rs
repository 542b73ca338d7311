//! Reads `name=value&name=value`, as in forms and in a URL's query, strictly.
//!
//! The usual decoders replace what is not UTF-8 and drop what they do not know. A job submitted with
//! a damaged URL or a misspelt field should be refused instead.

use super::problem::Problem;

/// Decodes all pairs and returns the values of the named fields, in that order.
pub(super) fn fields<const N: usize>(
    text: &[u8],
    names: [&str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for pair in text
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(place) => (&pair[..place], &pair[place + 1..]),
            None => (pair, &[][..]),
        };
        let name = decode(name, "a field's name")?;
        let value = decode(value, &format!("field {name:?}"))?;
        let Some(place) = names.iter().position(|known| *known == name) else {
            return Err(
                Problem::bad_request(format!("there is no field {name:?} here"))
                    .hint(format!("known fields are {}", names.join(", "))),
            );
        };
        if values[place].replace(value).is_some() {
            return Err(Problem::bad_request(format!(
                "field {name:?} is given twice"
            )));
        }
    }
    Ok(values)
}

fn decode(text: &[u8], what: &str) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let Some((digits, tail)) = rest.split_at_checked(2) else {
                    return Err(Problem::bad_request(format!(
                        "{what} ends in the middle of a % escape"
                    )));
                };
                rest = tail;
                let (high, low) = (hex(digits[0]), hex(digits[1]));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(Problem::bad_request(format!(
                        "{what} has a % that two hex digits do not follow"
                    )));
                };
                high * 16 + low
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Problem::bad_request(format!("{what} is not valid UTF-8 from byte {place} on"))
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: Result<[Option<&str>; 2], &str>) {
        let found =
            fields(text, ["url", "kind"]).map_err(|problem| serde_json::to_value(problem).unwrap());
        match (found, expected) {
            (Ok(found), Ok(expected)) => {
                assert_eq!(found, expected.map(|value| value.map(String::from)))
            }
            (Err(found), Err(expected)) => assert_eq!(found["detail"], expected),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn pairs_are_decoded() {
        check(
            b"url=http%3A%2f%2Fx%3Fa%3D1+2&kind=",
            Ok([Some("http://x?a=1 2"), Some("")]),
        );
        check(b"url=http://x/?a=b", Ok([Some("http://x/?a=b"), None]));
        check("url=\u{e9}".as_bytes(), Ok([Some("\u{e9}"), None]));
        check(b"", Ok([None, None]));
    }

    #[test]
    fn damage_is_named() {
        check(
            b"url=%ff",
            Err("field \"url\" is not valid UTF-8 from byte 0 on"),
        );
        check(
            b"url=a\xff",
            Err("field \"url\" is not valid UTF-8 from byte 1 on"),
        );
        check(
            b"url=%4",
            Err("field \"url\" ends in the middle of a % escape"),
        );
        check(
            b"url=%zz",
            Err("field \"url\" has a % that two hex digits do not follow"),
        );
        check(b"url=a&url=b", Err("field \"url\" is given twice"));
        check(b"uri=a", Err("there is no field \"uri\" here"));
    }
}
