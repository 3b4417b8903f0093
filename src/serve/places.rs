//! Places for clients: how many there are, and who makes room for whom.
//!
//! Who has not logged in yet has a place too. So that nobody keeps others out by opening connections and saying
//! nothing, there are fewer places at the door than inside, fewer still for one address, and the one who has stood
//! there longest goes when somebody else comes.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    taken: usize,
    by_address: HashMap<IpAddr, usize>,
    /// Those who have not logged in, the one who waits longest first.
    door: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    address: IpAddr,
    leave: CancellationToken,
}

/// One client's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    address: IpAddr,
    leave: CancellationToken,
}

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// Takes a place at the door; `None` when all are taken by clients who are inside, or too many by this address.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let address = block_of(peer);
        let (door, door_of_one) = ((self.most / 2).max(1), (self.most / 4).max(1));
        let all_of_one = (self.most - self.most / 4).max(1);
        let mut state = self.state();
        if state.by_address.get(&address).is_some_and(|&count| count >= all_of_one) && !state.send_away(Some(address)) {
            return None;
        }
        if state.door.iter().filter(|waiting| waiting.address == address).count() >= door_of_one {
            state.send_away(Some(address));
        }
        if state.door.len() >= door {
            state.send_away(None);
        }
        if state.taken >= self.most && !state.send_away(None) {
            return None;
        }
        let (id, leave) = (state.next, CancellationToken::new());
        state.next += 1;
        state.taken += 1;
        *state.by_address.entry(address).or_default() += 1;
        state.door.push_back(Waiting { id, address, leave: leave.clone() });
        Some(Place { places: Arc::clone(self), id, address, leave })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends away who has waited longest: of this address, or of the one that most are waiting from.
    fn send_away(&mut self, address: Option<IpAddr>) -> bool {
        let waiting = |address| self.door.iter().filter(|waiting| waiting.address == address).count();
        // Of equals the last one counts: the one who has waited longest.
        let busiest = || self.door.iter().rev().map(|waiting| waiting.address).max_by_key(|&address| waiting(address));
        let Some(address) = address.or_else(busiest) else { return false };
        let Some(index) = self.door.iter().position(|waiting| waiting.address == address) else { return false };
        let Some(waiting) = self.door.remove(index) else { return false };
        waiting.leave.cancel();
        // Its place is free as of now, however long it takes to leave.
        self.give_back(waiting.address);
        true
    }

    fn give_back(&mut self, address: IpAddr) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Place {
    /// Steps inside: from now on the place is the client's. False when it was sent away already.
    pub(super) fn enter(&self) -> bool {
        self.places.state().door.retain(|waiting| waiting.id != self.id);
        !self.leave.is_cancelled()
    }

    /// Waits until the client is sent away.
    pub(super) async fn is_needed(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.door.retain(|waiting| waiting.id != self.id);
        if !self.leave.is_cancelled() {
            state.give_back(self.address);
        }
    }
}

/// Returns what counts as one address: whoever has an IPv6 address has the rest of its network's, too.
pub(super) fn block_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn enter(places: &Arc<Places>, from: u8) -> Place {
        let place = places.take(address(from)).unwrap();
        assert!(place.enter());
        place
    }

    #[test]
    fn who_waits_longest_makes_room_for_others() {
        let places = Places::new(8);
        let waiting: Vec<_> = (0..10).map(|_| places.take(address(1)).unwrap()).collect();
        let left: Vec<_> = waiting.iter().map(|place| place.leave.is_cancelled()).collect();
        assert_eq!(left.iter().filter(|left| !**left).count(), 2, "a quarter for one address");
        assert!(!left[8] && !left[9], "the newest stay");
        let others: Vec<_> = (2..6).map(|from| places.take(address(from)).unwrap()).collect();
        assert!(others.iter().all(|place| !place.leave.is_cancelled()));
        assert!(waiting[8].leave.is_cancelled(), "half of all for those at the door");
    }

    #[test]
    fn who_is_inside_stays_and_leaves_room_for_other_addresses() {
        let places = Places::new(8);
        let inside: Vec<_> = (0..6).map(|_| enter(&places, 1)).collect();
        assert!(places.take(address(1)).is_none(), "three quarters for one address");
        let others = [enter(&places, 2), enter(&places, 3)];
        assert!(places.take(address(4)).is_none());
        assert!(inside.iter().chain(&others).all(|place| !place.leave.is_cancelled()));
        drop(others);
        drop(places.take(address(4)).unwrap());
        drop(inside);
        let state = places.state();
        assert_eq!((state.taken, state.by_address.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let block = |text: &str| block_of(text.parse().unwrap());
        assert_eq!(block("2001:db8::1"), block("2001:db8::2:3:4:5"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_eq!(block("::ffff:192.0.2.1"), address_of("192.0.2.1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
    }

    fn address_of(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn places_are_counted_whatever_happens(most in 1usize..12, acts in prop::collection::vec((0u8..4, any::<bool>(), any::<prop::sample::Index>()), 0..60)) {
            let places = Places::new(most);
            let mut held = Vec::new();
            for (from, comes, which) in acts {
                if comes || held.is_empty() {
                    held.extend(places.take(address(from)));
                } else if from == 0 {
                    held.swap_remove(which.index(held.len()));
                } else {
                    let _: bool = which.get(&held).enter();
                }
                let stay = held.iter().filter(|place| !place.leave.is_cancelled()).count();
                prop_assert!(stay <= most);
                prop_assert_eq!(places.state().taken, stay);
            }
            drop(held);
            prop_assert_eq!(places.state().taken, 0);
        }
    }
}
