//! What expressions are worth.

use std::cmp::Ordering;

use crate::{Arithmetic, Attributes, Comparison, Expression, Kind, TextTest, Value};

pub(super) fn value(expression: &Expression, attributes: &dyn Attributes) -> Option<Value> {
    let of = |expression: &Expression| value(expression, attributes);
    let text = |expression: &Expression| match of(expression)? {
        Value::String(text) => Some(text),
        _ => None,
    };
    Some(match expression {
        Expression::Literal(value) => value.clone(),
        Expression::Attribute(path) => attributes.value(path)?,
        Expression::Has(path) => Value::Bool(attributes.value(path).is_some()),
        Expression::Not(one) => Value::Bool(!truth(of(one))?),
        Expression::Negative(one) => Value::Number(-number(&of(one)?)?),
        Expression::And(one, other) => Value::Bool(!decide(truth(of(one)), || truth(of(other)), false)?),
        Expression::Or(one, other) => Value::Bool(decide(truth(of(one)), || truth(of(other)), true)?),
        Expression::Conditional(all) => {
            let [condition, yes, no] = &**all;
            if truth(of(condition))? { of(yes)? } else { of(no)? }
        }
        Expression::Compare(how, one, other) => Value::Bool(compare(*how, &of(one)?, &of(other)?)?),
        Expression::Arithmetic(how, one, other) => arithmetic(*how, of(one)?, &of(other)?)?,
        Expression::In(one, list) => {
            let member = of(one)?;
            Value::Bool(list.iter().any(|other| of(other).as_ref() == Some(&member)))
        }
        Expression::Text(test, one, other) => {
            let (one, other) = (text(one)?, text(other)?);
            Value::Bool(match test {
                TextTest::StartsWith => one.starts_with(&other),
                TextTest::EndsWith => one.ends_with(&other),
                TextTest::Contains => one.contains(&other),
            })
        }
        #[expect(clippy::cast_precision_loss, reason = "sizes are small")]
        Expression::Size(one) => Value::Number(match of(one)? {
            Value::String(text) => text.chars().count(),
            Value::List(list) => list.len(),
            Value::Struct(fields) => fields.len(),
            _ => return None,
        } as f64),
        Expression::AsText(one) => Value::String(match of(one)? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            _ => return None,
        }),
        Expression::AsNumber(one, kind) => {
            let number = match of(one)? {
                Value::Number(number) => number,
                Value::String(text) => text.parse().ok()?,
                _ => return None,
            };
            Value::Number(match kind {
                Kind::Whole => number.trunc(),
                Kind::Fraction => number,
            })
        }
        Expression::Matches(one, regex) => Value::Bool(regex.is_match(&text(one)?)),
        Expression::Capture(one, regex) => {
            Value::String(regex.captures(&text(one)?)?.get(1).map_or("", |group| group.as_str()).to_owned())
        }
        Expression::Extract(one, regex, rewrite) => Value::String(rewritten(rewrite, &regex.captures(&text(one)?)?)),
    })
}

/// RE2's rewrites: `\1` is the first group, `\\` a backslash.
fn rewritten(rewrite: &str, groups: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut letters = rewrite.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some(digit) if digit.is_ascii_digit() => {
                let group = digit.to_digit(10).and_then(|digit| groups.get(usize::try_from(digit).ok()?));
                out.push_str(group.map_or("", |group| group.as_str()));
            }
            other => out.extend(other),
        }
    }
    out
}

fn truth(value: Option<Value>) -> Option<bool> {
    match value? {
        Value::Bool(value) => Some(value),
        _ => None,
    }
}

/// Whether one of two is `wanted`: it does not matter then whether the other has a value.
fn decide(one: Option<bool>, other: impl FnOnce() -> Option<bool>, wanted: bool) -> Option<bool> {
    if one == Some(wanted) {
        return Some(true);
    }
    match (one, other()) {
        (_, Some(value)) if value == wanted => Some(true),
        (Some(_), Some(_)) => Some(false),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

fn compare(how: Comparison, one: &Value, other: &Value) -> Option<bool> {
    Some(match how {
        Comparison::Equal => one == other,
        Comparison::Unequal => one != other,
        Comparison::Less => order(one, other)?.is_lt(),
        Comparison::AtMost => order(one, other)?.is_le(),
        Comparison::Greater => order(one, other)?.is_gt(),
        Comparison::AtLeast => order(one, other)?.is_ge(),
    })
}

/// None for values of two kinds, and of kinds that have no order.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.partial_cmp(other),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

fn arithmetic(how: Arithmetic, one: Value, other: &Value) -> Option<Value> {
    if let (Arithmetic::Add, Value::String(one), Value::String(other)) = (how, &one, other) {
        return Some(Value::String(format!("{one}{other}")));
    }
    let (one, other) = (number(&one)?, number(other)?);
    let result = match how {
        Arithmetic::Add => one + other,
        Arithmetic::Subtract => one - other,
        Arithmetic::Multiply => one * other,
        // Whole numbers divide as such.
        Arithmetic::Divide if one.fract() == 0.0 && other.fract() == 0.0 => (one / other).trunc(),
        Arithmetic::Divide => one / other,
        Arithmetic::Remainder => one % other,
    };
    result.is_finite().then_some(Value::Number(result))
}
