//! From text to expressions, by the grammar of the language's definition (cel-spec, "Syntax").

use regex::{Regex, RegexBuilder};

use crate::{Arithmetic, Comparison, Expression, Key, Kind, Path, TextTest, Value};

/// Expressions within expressions. More are refused, so that none exhausts the stack.
const DEEPEST: u32 = 32;
const LONGEST: usize = 4096;
const LARGEST_REGEX: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    Name(String),
    Symbol(&'static str),
    End,
}

const SYMBOLS: [&str; 23] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", "(", ")", "[", "]", ".", ",",
    "{",
];

pub(super) fn expression(text: &str) -> Result<Expression, String> {
    if text.len() > LONGEST {
        return Err(format!("the expression is longer than {LONGEST} bytes"));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    let expression = parser.conditional()?;
    match parser.peek() {
        Token::End => expression.attribute(),
        other => Err(format!("{other} is not expected there")),
    }
}

/// What is being read: a chain of names is an attribute only once it is known how long it is.
enum Part {
    Whole(Expression),
    Chain(Vec<Key>),
}

impl Part {
    fn attribute(self) -> Result<Expression, String> {
        match self {
            Self::Whole(expression) => Ok(expression),
            Self::Chain(steps) => Path::of(&steps).map(Expression::Attribute),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(it) if *it == symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), String> {
        if self.takes(symbol) { Ok(()) } else { Err(format!("`{symbol}` is expected, not {}", self.peek())) }
    }

    fn nested(&mut self) -> Result<Expression, String> {
        self.conditional()?.attribute()
    }

    fn conditional(&mut self) -> Result<Part, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("the expression is nested too deeply".to_owned());
        }
        let condition = self.or()?;
        let part = if self.takes("?") {
            let yes = self.or()?.attribute()?;
            self.expect(":")?;
            let no = self.nested()?;
            Part::Whole(Expression::Conditional(Box::new([condition.attribute()?, yes, no])))
        } else {
            condition
        };
        self.depth -= 1;
        Ok(part)
    }

    fn or(&mut self) -> Result<Part, String> {
        let mut left = self.and()?;
        while self.takes("||") {
            let right = self.and()?.attribute()?;
            left = Part::Whole(Expression::Or(Box::new(left.attribute()?), Box::new(right)));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Part, String> {
        let mut left = self.relation()?;
        while self.takes("&&") {
            let right = self.relation()?.attribute()?;
            left = Part::Whole(Expression::And(Box::new(left.attribute()?), Box::new(right)));
        }
        Ok(left)
    }

    fn relation(&mut self) -> Result<Part, String> {
        let mut left = self.sum()?;
        loop {
            let comparison = match self.peek() {
                Token::Symbol("==") => Comparison::Equal,
                Token::Symbol("!=") => Comparison::Unequal,
                Token::Symbol("<") => Comparison::Less,
                Token::Symbol("<=") => Comparison::AtMost,
                Token::Symbol(">") => Comparison::Greater,
                Token::Symbol(">=") => Comparison::AtLeast,
                Token::Name(name) if name == "in" => {
                    self.at += 1;
                    left = Part::Whole(self.membership(left.attribute()?)?);
                    continue;
                }
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.sum()?.attribute()?;
            left = Part::Whole(Expression::Compare(comparison, Box::new(left.attribute()?), Box::new(right)));
        }
    }

    /// `'name' in request.headers`, or a value in a list that is written down.
    fn membership(&mut self, member: Expression) -> Result<Expression, String> {
        if self.takes("[") {
            let mut list = Vec::new();
            while !self.takes("]") {
                list.push(self.nested()?);
                if !self.takes(",") && !matches!(self.peek(), Token::Symbol("]")) {
                    return Err(format!("`,` or `]` is expected, not {}", self.peek()));
                }
            }
            return Ok(Expression::In(Box::new(member), list));
        }
        match (member, self.sum()?) {
            (Expression::Literal(Value::String(name)), Part::Chain(mut steps)) => {
                steps.push(Key::Name(name.into()));
                Path::of(&steps).map(Expression::Has)
            }
            _ => Err("`in` takes a list, or a literal and an attribute".to_owned()),
        }
    }

    fn sum(&mut self) -> Result<Part, String> {
        let mut left = self.product()?;
        loop {
            let how = match self.peek() {
                Token::Symbol("+") => Arithmetic::Add,
                Token::Symbol("-") => Arithmetic::Subtract,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.product()?.attribute()?;
            left = Part::Whole(Expression::Arithmetic(how, Box::new(left.attribute()?), Box::new(right)));
        }
    }

    fn product(&mut self) -> Result<Part, String> {
        let mut left = self.unary()?;
        loop {
            let how = match self.peek() {
                Token::Symbol("*") => Arithmetic::Multiply,
                Token::Symbol("/") => Arithmetic::Divide,
                Token::Symbol("%") => Arithmetic::Remainder,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.unary()?.attribute()?;
            left = Part::Whole(Expression::Arithmetic(how, Box::new(left.attribute()?), Box::new(right)));
        }
    }

    fn unary(&mut self) -> Result<Part, String> {
        let (mut nots, mut minuses) = (0, 0);
        while self.takes("!") {
            nots += 1;
        }
        while nots == 0 && self.takes("-") {
            minuses += 1;
        }
        let part = self.member()?;
        if nots + minuses == 0 {
            return Ok(part);
        }
        let mut expression = part.attribute()?;
        if minuses % 2 == 1 {
            expression = Expression::Negative(Box::new(expression));
        }
        // Twice is not the same as never: what is no truth value has none.
        for _ in 0..nots.min(2 - nots % 2) {
            expression = Expression::Not(Box::new(expression));
        }
        Ok(Part::Whole(expression))
    }

    fn member(&mut self) -> Result<Part, String> {
        let mut part = self.primary()?;
        loop {
            if self.takes(".") {
                let Token::Name(name) = self.next() else { return Err("a name is expected behind `.`".to_owned()) };
                if self.takes("(") {
                    part = Part::Whole(self.method(part, &name)?);
                    continue;
                }
                part = step(part, Key::Name(name.into()))?;
            } else if self.takes("[") {
                let key = match self.next() {
                    Token::Text(name) => Key::Name(name.into()),
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
                    Token::Number(number) if number.fract() == 0.0 && (0.0..1e6).contains(&number) => {
                        Key::Index(number as usize)
                    }
                    _ => return Err("what is asked for in `[]` must be a literal".to_owned()),
                };
                self.expect("]")?;
                part = step(part, key)?;
            } else {
                return Ok(part);
            }
        }
    }

    fn method(&mut self, on: Part, name: &str) -> Result<Expression, String> {
        if let Part::Chain(steps) = &on
            && let [Key::Name(namespace)] = steps.as_slice()
            && **namespace == *"re"
        {
            return self.regex_function(name);
        }
        let on = Box::new(on.attribute()?);
        let test = match name {
            "startsWith" => TextTest::StartsWith,
            "endsWith" => TextTest::EndsWith,
            "contains" => TextTest::Contains,
            "matches" => {
                let regex = self.regex(|text| text.to_owned())?;
                self.expect(")")?;
                return Ok(Expression::Matches(on, regex));
            }
            "size" => {
                self.expect(")")?;
                return Ok(Expression::Size(on));
            }
            _ => return Err(format!("`{name}` is not a function that is known")),
        };
        let with = self.nested()?;
        self.expect(")")?;
        Ok(Expression::Text(test, on, Box::new(with)))
    }

    /// cel-cpp's `regex_functions`.
    fn regex_function(&mut self, name: &str) -> Result<Expression, String> {
        let target = Box::new(self.nested()?);
        self.expect(",")?;
        let expression = match name {
            "capture" => Expression::Capture(target, self.regex(|text| format!("^(?:{text})$"))?),
            "extract" => {
                let regex = self.regex(|text| text.to_owned())?;
                self.expect(",")?;
                let Token::Text(rewrite) = self.next() else { return Err("the rewrite must be a literal".to_owned()) };
                Expression::Extract(target, regex, rewrite.into())
            }
            _ => return Err(format!("`re.{name}` is not a function that is known")),
        };
        self.expect(")")?;
        Ok(expression)
    }

    fn regex(&mut self, form: impl Fn(&str) -> String) -> Result<Regex, String> {
        let Token::Text(text) = self.next() else {
            return Err("a regular expression must be a literal".to_owned());
        };
        let built = RegexBuilder::new(&form(&text)).size_limit(LARGEST_REGEX).build();
        built.map_err(|_| format!("`{text}` is not a regular expression, or too large a one"))
    }

    fn primary(&mut self) -> Result<Part, String> {
        Ok(Part::Whole(match self.next() {
            Token::Number(number) => Expression::Literal(Value::Number(number)),
            Token::Text(text) => Expression::Literal(Value::String(text)),
            Token::Symbol("(") => {
                let within = self.nested()?;
                self.expect(")")?;
                within
            }
            Token::Name(name) => match name.as_str() {
                "true" => Expression::Literal(Value::Bool(true)),
                "false" => Expression::Literal(Value::Bool(false)),
                "null" => Expression::Literal(Value::Null),
                _ if self.takes("(") => self.function(&name)?,
                _ => return Ok(Part::Chain(vec![Key::Name(name.into())])),
            },
            other => return Err(format!("a value is expected, not {other}")),
        }))
    }

    fn function(&mut self, name: &str) -> Result<Expression, String> {
        let argument = self.conditional()?;
        let expression = match (name, argument) {
            ("has", Part::Chain(steps)) => Expression::Has(Path::of(&steps)?),
            ("has", Part::Whole(_)) => return Err("`has` takes an attribute".to_owned()),
            ("size", argument) => Expression::Size(Box::new(argument.attribute()?)),
            ("string", argument) => Expression::AsText(Box::new(argument.attribute()?)),
            ("int" | "uint", argument) => Expression::AsNumber(Box::new(argument.attribute()?), Kind::Whole),
            ("double", argument) => Expression::AsNumber(Box::new(argument.attribute()?), Kind::Fraction),
            ("duration", Part::Whole(Expression::Literal(Value::String(text)))) => {
                let seconds = seconds(&text).ok_or_else(|| format!("`{text}` is not a duration"))?;
                Expression::Literal(Value::Number(seconds))
            }
            _ => return Err(format!("`{name}` is not a function that is known")),
        };
        self.expect(")")?;
        Ok(expression)
    }
}

fn step(part: Part, key: Key) -> Result<Part, String> {
    match part {
        Part::Chain(mut steps) => {
            steps.push(key);
            Ok(Part::Chain(steps))
        }
        Part::Whole(_) => Err("only attributes have something in them".to_owned()),
    }
}

/// `1h30m`, `250ms`: a duration is a number of seconds here.
fn seconds(text: &str) -> Option<f64> {
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first.is_ascii_digit() {
            number(rest)?
        } else if let Some(found) = literal(rest)? {
            found
        } else if first.is_ascii_alphabetic() || first == '_' {
            let word = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
            let length = rest.find(word).unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| format!("`{first}` is not understood"))?;
            (Token::Symbol(symbol), symbol.len())
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let part_of = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
    let length = text.find(|letter| !part_of(letter)).unwrap_or(text.len());
    let written = text[..length].trim_end_matches(['u', 'U']);
    let number = match written.strip_prefix("0x") {
        #[expect(clippy::cast_precision_loss, reason = "numbers are doubles here")]
        Some(digits) => i64::from_str_radix(digits, 16).ok().map(|number| number as f64),
        None => written.parse().ok(),
    };
    number.map(|number| (Token::Number(number), length)).ok_or_else(|| format!("`{}` is not a number", &text[..length]))
}

/// A text in single or double quotes, three of them for one over several lines, with `r` before it for one without escapes.
fn literal(text: &str) -> Result<Option<(Token, usize)>, String> {
    let raw = text.starts_with(['r', 'R']) && text[1..].starts_with(['"', '\'']);
    let body = &text[usize::from(raw)..];
    let Some(quote) = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| body.starts_with(quote)) else {
        return Ok(None);
    };
    let mut out = String::new();
    let mut letters = body[quote.len()..].char_indices();
    while let Some((at, letter)) = letters.next() {
        if body[quote.len() + at..].starts_with(quote) {
            return Ok(Some((Token::Text(out), usize::from(raw) + quote.len() + at + quote.len())));
        }
        match letter {
            '\\' if !raw => {
                let escaped = letters.next().map(|(_, escaped)| escaped).unwrap_or_default();
                out.push(match escaped {
                    '\\' | '"' | '\'' | '`' | '?' => escaped,
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    _ => return Err(format!("`\\{escaped}` is not an escape; a backslash is written `\\\\`")),
                });
            }
            _ => out.push(letter),
        }
    }
    Err("a text has no closing quote".to_owned())
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "`{number}`"),
            Self::Text(text) => write!(f, "`'{text}'`"),
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Symbol(symbol) => write!(f, "`{symbol}`"),
            Self::End => f.write_str("the end"),
        }
    }
}
