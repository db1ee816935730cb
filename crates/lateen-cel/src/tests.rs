//! Expressions over a request, and what is said of those that are none.

use crate::{Attribute, Attributes, Path, Program, Value};

struct Request;

impl Attributes for Request {
    fn value(&self, path: &Path) -> Option<Value> {
        let text = |text: &str| Some(Value::String(text.to_owned()));
        match path.attribute {
            Attribute::RequestHost => text("shop.test:80"),
            Attribute::RequestHeaders if path.header() == "x-a" => text("b"),
            Attribute::ResponseCode => Some(Value::Number(503.0)),
            Attribute::RequestDuration => Some(Value::Number(0.25)),
            Attribute::PeerSubject => text("CN=/w:reviews-v1/c:reviews/r:v1"),
            _ => None,
        }
    }
}

fn value(expression: &str) -> Option<Value> {
    Program::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).value(&Request)
}

#[test]
fn expressions_have_the_values_of_the_language() {
    let text = |text: &str| Some(Value::String(text.to_owned()));
    let bool = |value| Some(Value::Bool(value));
    let number = |number| Some(Value::Number(number));
    for (expression, expected) in [
        ("'a' + \"b\"", text("ab")),
        ("r'\\d'", text("\\d")),
        ("'a\\'b\\\\'", text("a'b\\")),
        ("1 + 2 * 3 - -1", number(8.0)),
        ("7 / 2", number(3.0)),
        ("7.0 / 2.5", number(2.8)),
        ("7 % 4", number(3.0)),
        ("1 / 0", None),
        ("request.host", text("shop.test:80")),
        ("request.host.startsWith('shop') && !request.host.endsWith('x')", bool(true)),
        ("request.host.matches('^shop\\\\.')", bool(true)),
        ("request.host.size() > 3 && size('é') == 1", bool(true)),
        ("request.headers['x-a']", text("b")),
        ("request.headers['x-none']", None),
        ("request.headers['x-none'] == 'a' || true", bool(true)),
        ("request.headers['x-none'] == 'a' && false", bool(false)),
        ("request.headers['x-none'] == 'a' || false", None),
        ("'x-a' in request.headers ? request.headers['x-a'] : 'unknown'", text("b")),
        ("has(request.headers.missing) ? 'yes' : 'no'", text("no")),
        ("response.code in [500, 503]", bool(true)),
        ("response.code >= 500 ? '5xx' : response.code >= 400 ? '4xx' : 'fine'", text("5xx")),
        ("string(response.code)", text("503")),
        ("string(100000)", text("100000")),
        ("int('12') + 1", number(13.0)),
        ("request.duration > duration('200ms')", bool(true)),
        ("request.duration > duration('1m0.5s')", bool(false)),
        ("re.capture(connection.subject_peer_certificate, '.*/c:([^/,]+).*')", text("reviews")),
        ("re.capture(connection.subject_peer_certificate, '/c:([^/,]+)')", None),
        ("re.extract(request.host, '([a-z]+)[.]([a-z]+)', '\\\\2-\\\\1')", text("test-shop")),
        ("(1 < 2) == true", bool(true)),
        ("!!(1 < 2)", bool(true)),
        ("!!!(1 < 2)", bool(false)),
        ("true == null", bool(false)),
    ] {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

#[test]
fn what_is_not_understood_is_named() {
    for (expression, part) in [
        ("", "a value is expected"),
        ("request.nope", "`request.nope`"),
        ("nope", "`nope`"),
        ("request.headers", "request.headers"),
        ("request.headers[response.code]", "literal"),
        ("request.host.lowerAscii()", "lowerAscii"),
        ("f(1)", "`f`"),
        ("1 +", "the end"),
        ("'a", "quote"),
        ("'\\d'", "\\d"),
        ("request.host.matches('(')", "regular expression"),
        ("1 2", "`2`"),
        ("a && (b", "attribute"),
        ("§", "§"),
        ("has('a')", "has"),
    ] {
        let error = Program::parse(expression).expect_err(expression);
        assert!(error.contains(part), "{expression}: {error}");
    }
    let deep = "(".repeat(5000) + "1" + &")".repeat(5000);
    assert!(Program::parse(&deep).is_err());
    assert!(Program::parse(&("(".repeat(200) + "1" + &")".repeat(200))).is_err());
    assert!(Program::parse(&("!".repeat(4000) + "true")).is_ok());
}

#[test]
fn an_expression_tells_what_it_depends_on() {
    let program = Program::parse("has(request.headers.a) ? request.host : string(response.code)").expect("it is right");
    let paths: Vec<String> = program.paths().into_iter().map(ToString::to_string).collect();
    assert_eq!(paths, ["request.headers['a']", "request.host", "response.code"]);
}
