//! From OpenMetrics, which is what the library writes, to Prometheus' older text form: there counters are called what they are
//! registered as, and Istio's names have no `_total` where its dashboards look for none.

pub(super) fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut counter: Option<&str> = None;
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            counter = rest.strip_suffix(" counter");
        }
        let sample = counter.and_then(|name| Some((name, line.strip_prefix(name)?.strip_prefix("_total")?)));
        match sample {
            Some((name, rest)) => out.extend([name, rest]),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_are_called_what_they_are_registered_as() {
        let text = "\
# HELP a Things.
# TYPE a counter
a_total 1
# TYPE b_total counter
b_total_total{type=\"x\"} 2
# TYPE c gauge
c_total 3
# EOF
";
        let expected = "\
# HELP a Things.
# TYPE a counter
a 1
# TYPE b_total counter
b_total{type=\"x\"} 2
# TYPE c gauge
c_total 3
";
        assert_eq!(super::classic(text), expected);
    }
}
