//! The program that an init container runs.

use std::process::{Command, Output};

use crate::isolated::{isolated, program};
use crate::talk::{ask, listen, node, pod};

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[test]
fn it_applies_checks_and_cleans() {
    isolated("binary::it_applies_checks_and_cleans", || {
        node();
        let pod = pod(2);
        pod.net
            .run(|| {
                assert_eq!(run(&["check"]).status.code(), Some(1));
                // As Istio's injector writes them.
                let istio = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,9090,15020";
                let options: Vec<&str> = istio.split(' ').collect();
                let applied = run(&[&["apply"], options.as_slice()].concat());
                assert!(applied.status.success(), "{}", text(&applied.stderr));
                let checked = run(&[&["check"], options.as_slice()].concat());
                assert_eq!(
                    (checked.status.code(), text(&checked.stdout).as_str()),
                    (Some(0), "the rules are in force")
                );
                assert_eq!(run(&["check"]).status.code(), Some(1), "other options, other rules");
                listen("inbound", 15006);
                listen("excluded", 9090);
            })
            .unwrap();
        assert_eq!(ask(pod.address, 9080).unwrap(), "inbound 10.244.0.2:9080 from 169.254.1.1");
        assert_eq!(ask(pod.address, 9090).unwrap(), "excluded 10.244.0.2:9090 from 169.254.1.1");
        pod.net
            .run(|| {
                assert_eq!(text(&run(&["clean"]).stdout), "removed");
                assert_eq!(text(&run(&["clean"]).stdout), "nothing to remove");
            })
            .unwrap();
    });
}

#[test]
fn a_wrong_call_exits_2_and_names_the_option() {
    for (arguments, part) in [
        (["apply", "--exclude-inbound-ports", "80,http"], "`http` is not a port"),
        (["apply", "--include-outbound-cidrs", "10.0.0.0/40"], "`10.0.0.0/40` is not a CIDR"),
        (["apply", "-m", "TPROXY"], "[possible values: REDIRECT]"),
        (["apply", "--inbound-port", "0"], "`0` is not a port"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

#[test]
fn without_the_right_to_change_rules_it_says_so() {
    isolated("binary::without_the_right_to_change_rules_it_says_so", || {
        let output = Command::new("setpriv")
            .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"])
            .arg(program())
            .arg("apply")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("CAP_NET_ADMIN"), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("Operation not permitted"), "{}", text(&output.stderr));
    });
}
