//! The queue of requests that wait for a slot, fair among clients by the tokens that each was served.
//!
//! This is the virtual token counter of [Sheng et al. 2024](https://arxiv.org/abs/2401.00588): the next slot goes to the
//! waiting client that was served the fewest tokens. A client that was idle starts level with the least served active client,
//! so that it can't save up.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::LazyLock;

/// Beyond this many clients, idle ones are forgotten, the least served first: none gains more than its own debt by that.
const MAX_CLIENTS: usize = 4096;

/// A client's name as far as the queue keeps it: a hash, since names are as long as clients like. Its key is this process's own,
/// so that nobody can look for two names of one hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientId(u64);

impl ClientId {
    pub(super) fn of(name: &str) -> Self {
        static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(HASHER.hash_one(name))
    }
}

/// Requests that wait, up to a number of them.
pub(super) struct Queue<T> {
    clients: BTreeMap<ClientId, Client<T>>,
    room: usize,
    waiting: usize,
    /// Places of requests that are still being prepared.
    reserved: usize,
    /// What the least served of the active clients had been served when there last were any.
    floor: u64,
}

struct Client<T> {
    waiting: VecDeque<(u64, T)>,
    /// Requests that left the queue and have not ended.
    running: usize,
    served: u64,
}

impl<T> Client<T> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }
}

impl<T> Queue<T> {
    pub(super) fn new(room: usize) -> Self {
        Self { clients: BTreeMap::new(), room, waiting: 0, reserved: 0, floor: 0 }
    }

    /// Requests that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Requests that may wait at most.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Keeps a place for a request that is still being prepared. Returns whether there is one.
    pub(super) fn reserve(&mut self) -> bool {
        let has_room = self.waiting + self.reserved < self.room;
        self.reserved += usize::from(has_room);
        has_room
    }

    /// Gives a reserved place back.
    pub(super) fn release(&mut self) {
        self.reserved -= 1;
    }

    /// Adds a request after its client's others, in the place that was reserved for it; ids ascend.
    pub(super) fn push(&mut self, client: ClientId, id: u64, request: T) {
        self.release();
        let busy = self.clients.values().filter(|client| !client.is_idle());
        self.floor = busy.map(|client| client.served).min().unwrap_or(self.floor);
        let client = self.clients.entry(client).or_insert_with(|| Client {
            waiting: VecDeque::new(),
            running: 0,
            served: 0,
        });
        if client.is_idle() {
            client.served = client.served.max(self.floor);
        }
        client.waiting.push_back((id, request));
        self.waiting += 1;
    }

    /// Takes the first request of the least served client; among equals, the one that came first.
    pub(super) fn pop(&mut self) -> Option<T> {
        let next = self.clients.values_mut().filter(|client| !client.waiting.is_empty());
        let client = next.min_by_key(|client| (client.served, client.waiting[0].0))?;
        client.running += 1;
        self.waiting -= 1;
        client.waiting.pop_front().map(|(_, request)| request)
    }

    /// Removes a request that still waits.
    pub(super) fn remove(&mut self, client: ClientId, id: u64) -> Option<T> {
        let waiting = &mut self.clients.get_mut(&client)?.waiting;
        let index = waiting.iter().position(|(other, _)| *other == id)?;
        self.waiting -= 1;
        let request = waiting.remove(index).map(|(_, request)| request);
        self.forget_idle();
        request
    }

    /// Removes those that `is_over` picks, most often none.
    pub(super) fn remove_where(&mut self, is_over: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        let has_some = |client: &&mut Client<T>| client.waiting.iter().any(|(_, request)| is_over(request));
        for client in self.clients.values_mut().filter(has_some) {
            let (over, kept) = client.waiting.drain(..).partition(|(_, request)| is_over(request));
            client.waiting = kept;
            removed.extend::<VecDeque<_>>(over);
        }
        if !removed.is_empty() {
            self.waiting -= removed.len();
            self.forget_idle();
        }
        removed.into_iter().map(|(_, request)| request).collect()
    }

    /// Removes everything.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.waiting = 0;
        let waiting = self.clients.values_mut().flat_map(|client| client.waiting.drain(..));
        waiting.map(|(_, request)| request).collect()
    }

    /// Adds tokens that a client was served.
    pub(super) fn charge(&mut self, client: ClientId, tokens: u64) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.served += tokens;
        }
    }

    /// A request that had left the queue has ended.
    pub(super) fn ended(&mut self, client: ClientId) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.running -= 1;
        }
        self.forget_idle();
    }

    fn forget_idle(&mut self) {
        if self.clients.len() > MAX_CLIENTS {
            let idle = self.clients.iter().filter(|(_, client)| client.is_idle());
            let least = idle.min_by_key(|(_, client)| client.served).map(|(client, _)| *client);
            least.map(|client| self.clients.remove(&client));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push<T>(queue: &mut Queue<T>, client: &str, id: u64, request: T) -> bool {
        let has_room = queue.reserve();
        if has_room {
            queue.push(ClientId::of(client), id, request);
        }
        has_room
    }

    #[test]
    fn a_full_queue_reserves_no_place() {
        let mut queue = Queue::new(2);
        assert!(
            push(&mut queue, "a", 0, 'x') && push(&mut queue, "b", 1, 'y') && !push(&mut queue, "a", 2, 'z')
        );
        assert_eq!(queue.remove(ClientId::of("b"), 1), Some('y'));
        assert_eq!(queue.remove(ClientId::of("b"), 1), None);
        // A place that is only reserved is taken all the same.
        assert!(queue.reserve() && !queue.reserve());
        queue.release();
        assert!(push(&mut queue, "a", 2, 'z'));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some('x'), Some('z'), None));
    }

    #[test]
    fn who_returns_can_not_have_saved_up() {
        let mut queue = Queue::new(9);
        let (busy, new) = (ClientId::of("busy"), ClientId::of("new"));
        push(&mut queue, "busy", 0, 0);
        queue.pop();
        queue.charge(busy, 1000);
        for id in 1..4 {
            push(&mut queue, "busy", id, id);
            push(&mut queue, "new", id + 10, id + 10);
        }
        // Level at first, so by arrival; then the one that was served less.
        assert_eq!(queue.pop(), Some(1));
        queue.charge(busy, 5);
        assert_eq!(queue.pop(), Some(11));
        queue.charge(new, 2);
        assert_eq!(queue.pop(), Some(12));
        queue.charge(new, 4);
        assert_eq!(queue.pop(), Some(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// While all clients always have requests waiting, what they were served differs by at most one request.
        #[test]
        fn clients_are_served_alike(costs in prop::collection::vec(1_u64..50, 60), clients in 2_usize..5) {
            let mut queue = Queue::new(1000);
            let names: Vec<String> = (0..clients).map(|client| format!("client {client}")).collect();
            for id in 0..200 {
                push(&mut queue, &names[id as usize % clients], id, id as usize % clients);
            }
            let mut served = vec![0; clients];
            for cost in costs {
                let client = queue.pop().unwrap();
                served[client] += cost;
                queue.charge(ClientId::of(&names[client]), cost);
                queue.ended(ClientId::of(&names[client]));
                let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
                prop_assert!(most - least < 50, "{served:?}");
            }
        }
    }
}
