//! Expressions of the Common Expression Language over Envoy's attributes, as `%CEL()%` and rules about telemetry have them.
//!
//! The part of the language that makes sense of one request: literals, conditions, comparisons, arithmetic, text and regular
//! expressions. Attributes are told apart when the expression is read, keys into them must be literals, and what is not known is
//! an error then. There is no loop: an expression costs what its length says. What is not there has no value, and neither has
//! what is made of it, but for `&&`, `||`, `?:` and `has()`, which may do without.

mod attribute;
mod evaluate;
pub mod json;
mod parse;
#[cfg(test)]
mod tests;
mod value;

pub use attribute::{Attribute, Key, Path};
use regex::Regex;
pub use value::Value;

/// What expressions look at.
pub trait Attributes {
    /// The value at a path, if it is there.
    fn value(&self, path: &Path) -> Option<Value>;
}

/// An expression that has been read.
#[derive(Clone, Debug)]
pub struct Program {
    root: Expression,
    text: Box<str>,
}

#[derive(Clone, Debug)]
enum Expression {
    Literal(Value),
    Attribute(Path),
    Has(Path),
    Not(Box<Self>),
    Negative(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Conditional(Box<[Self; 3]>),
    Compare(Comparison, Box<Self>, Box<Self>),
    Arithmetic(Arithmetic, Box<Self>, Box<Self>),
    In(Box<Self>, Vec<Self>),
    Text(TextTest, Box<Self>, Box<Self>),
    Size(Box<Self>),
    AsText(Box<Self>),
    AsNumber(Box<Self>, Kind),
    Matches(Box<Self>, Regex),
    /// The first group, where the whole text matches (`re.capture`).
    Capture(Box<Self>, Regex),
    /// What groups say, put into a text (`re.extract`).
    Extract(Box<Self>, Regex, Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug)]
enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Whole,
    Fraction,
}

impl Program {
    /// # Errors
    /// A sentence that says what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { root: parse::expression(text)?, text: text.into() })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the expression is worth; nothing where it needs what is not there.
    pub fn value(&self, attributes: &dyn Attributes) -> Option<Value> {
        evaluate::value(&self.root, attributes)
    }

    /// Whether the expression holds: what has no value does not.
    pub fn holds(&self, attributes: &dyn Attributes) -> bool {
        self.value(attributes) == Some(Value::Bool(true))
    }

    /// Everything that the value depends on.
    pub fn paths(&self) -> Vec<&Path> {
        let mut found = Vec::new();
        self.root.visit(&mut found);
        found
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Program {}

impl Expression {
    fn visit<'a>(&'a self, found: &mut Vec<&'a Path>) {
        match self {
            Self::Literal(_) => {}
            Self::Attribute(path) | Self::Has(path) => found.push(path),
            Self::Not(one)
            | Self::Negative(one)
            | Self::Size(one)
            | Self::AsText(one)
            | Self::AsNumber(one, _)
            | Self::Matches(one, _)
            | Self::Capture(one, _)
            | Self::Extract(one, ..) => one.visit(found),
            Self::And(one, other)
            | Self::Or(one, other)
            | Self::Compare(_, one, other)
            | Self::Arithmetic(_, one, other)
            | Self::Text(_, one, other) => {
                one.visit(found);
                other.visit(found);
            }
            Self::Conditional(all) => all.iter().for_each(|one| one.visit(found)),
            Self::In(one, list) => {
                one.visit(found);
                list.iter().for_each(|one| one.visit(found));
            }
        }
    }
}
