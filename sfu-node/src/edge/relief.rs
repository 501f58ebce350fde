//! Which calls a busy node lets go of.

use shared::ids::RoomName;

/// The rooms whose sessions go elsewhere, so that about `sessions` go: whole rooms, the largest that fit first. Where none
/// fits, the smallest one, unless it is most of what there is: it would only take the load with it.
pub(crate) fn choose(mut rooms: Vec<(RoomName, usize)>, sessions: usize) -> Vec<RoomName> {
    rooms.retain(|(_, size)| *size > 0);
    rooms.sort_by(|(a, more), (b, less)| less.cmp(more).then_with(|| a.as_str().cmp(b.as_str())));
    let all: usize = rooms.iter().map(|(_, size)| size).sum();
    let mut left = sessions;
    let mut chosen: Vec<RoomName> = Vec::new();
    for (room, size) in &rooms {
        if let Some(rest) = left.checked_sub(*size) {
            left = rest;
            chosen.push(room.clone());
        }
    }
    if chosen.is_empty()
        && let Some((room, _)) = rooms.last().filter(|(_, size)| 2 * size <= all)
    {
        chosen.push(room.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(sizes: &[usize], sessions: usize) -> Vec<usize> {
        let name = |n: usize| RoomName::try_from(format!("room-{n}")).unwrap();
        let rooms = sizes.iter().enumerate().map(|(n, size)| (name(n), *size)).collect();
        let place = |room: &RoomName| (0..sizes.len()).find(|n| name(*n) == *room).unwrap();
        choose(rooms, sessions).iter().map(|room| sizes[place(room)]).collect()
    }

    #[test]
    fn few_calls_are_disturbed() {
        assert_eq!(chosen(&[2, 7, 3, 2, 12], 10), [7, 3]);
        assert_eq!(chosen(&[2, 2, 2, 0], 4), [2, 2]);
        assert_eq!(chosen(&[5, 4, 6], 2), [4], "more than asked for, and still the smaller part");
    }

    #[test]
    fn a_call_that_is_most_of_the_load_stays() {
        assert!(chosen(&[40], 10).is_empty());
        assert_eq!(chosen(&[40, 1], 10), [1]);
        assert!(chosen(&[0, 0], 10).is_empty());
        assert!(chosen(&[], 10).is_empty());
    }
}
