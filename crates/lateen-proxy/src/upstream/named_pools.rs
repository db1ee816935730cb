//! A host's pools: one, or one for each name by which requests call the server, where the cluster asks for that
//! (`auto_sni`): a connection that was made in one name must not carry requests for another.

use std::cell::RefCell;
use std::rc::Rc;

use lateen_engine::config::cluster::ServerNames;

use super::pool::Pool;

/// Names come from clients: beyond these the one that was not used for longest is closed.
const MOST_NAMES: usize = 64;

#[derive(Clone, Debug, Default)]
pub(crate) struct Pools(Rc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    nameless: Pool,
    /// In the order of use, the last one last.
    named: RefCell<Vec<(ServerNames, Pool)>>,
}

impl Pools {
    /// The pool whose connections are made in these names.
    pub(crate) fn of(&self, names: Option<&ServerNames>) -> Pool {
        let Some(names) = names else { return self.0.nameless.clone() };
        let mut named = self.0.named.borrow_mut();
        let entry = match named.iter().position(|(known, _)| known == names) {
            Some(index) => named.remove(index),
            None => {
                if named.len() >= MOST_NAMES {
                    named.remove(0).1.retire();
                }
                (names.clone(), Pool::default())
            }
        };
        let pool = entry.1.clone();
        named.push(entry);
        pool
    }

    /// Closes what is idle in all of them, and lets nothing come back that is out now.
    pub(crate) fn retire(&self) {
        self.0.nameless.retire();
        self.0.named.borrow_mut().drain(..).for_each(|(_, pool)| pool.retire());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_pool_until_too_many_others_came() {
        let pools = Pools::default();
        let name = |name: usize| ServerNames { sni: Some(format!("{name}.test")), ..ServerNames::default() };
        let first = pools.of(Some(&name(0)));
        (1..MOST_NAMES).for_each(|other| drop(pools.of(Some(&name(other)))));
        assert_eq!(pools.of(Some(&name(0))).generation(), 0, "it is known, and now the newest");
        pools.of(Some(&name(MOST_NAMES)));
        assert_eq!(first.generation(), 0, "another one went");
        (1..MOST_NAMES).for_each(|other| drop(pools.of(Some(&name(MOST_NAMES + other)))));
        assert_eq!(first.generation(), 1, "now it is closed");
        assert_eq!(pools.0.named.borrow().len(), MOST_NAMES);
    }
}
