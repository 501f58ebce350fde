use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What is due up to `now`, in the order taken.
fn due(wheel: &mut Wheel, now: u64) -> Vec<usize> {
    std::iter::from_fn(|| wheel.take_due(now)).map(|(_, owner)| owner).collect()
}

/// Waits as a thread would; gives when the first comes, with how many looks.
fn wait(wheel: &mut Wheel) -> (u64, usize, u32) {
    for looks in 1.. {
        let now = wheel.next().unwrap();
        if let Some((at, owner)) = wheel.take_due(now) {
            assert_eq!(at, now);
            return (now, owner, looks);
        }
    }
    unreachable!()
}

#[test]
fn deadlines_move_and_go_away() {
    let mut wheel = Wheel::new();
    assert_eq!((wheel.next(), wheel.take_due(5)), (None, None));
    wheel.set(3, 20);
    wheel.set(1, 10);
    wheel.set(3, 30);
    wheel.set(2, 30);
    assert_eq!((wheel.deadline(3), wheel.next()), (Some(30), Some(10)));
    assert!(due(&mut wheel, 9).is_empty());
    assert_eq!(due(&mut wheel, 29), [1]);
    wheel.clear(3);
    wheel.clear(3);
    assert_eq!((wheel.deadline(3), due(&mut wheel, 1_000)), (None, vec![2]));
    wheel.set(7, 500);
    assert_eq!(due(&mut wheel, 1_000), [7], "what is past is due at once");
    assert_eq!(wheel.next(), None);
}

#[test]
fn a_deadline_far_away_is_met_with_few_looks() {
    for at in [1, 63, 64, 65, 4_095, 4_096, 300_000, 20_000_000, 900_000_000] {
        for start in [0, 1, 63, 64, 12_345_678] {
            let mut wheel = Wheel::new();
            assert_eq!(wheel.take_due(start), None);
            wheel.set(0, start + at);
            let (now, owner, looks) = wait(&mut wheel);
            assert_eq!((now, owner), (start + at, 0), "{at} after {start}");
            assert!(looks <= 5 + u32::try_from(at / REACH).unwrap(), "{looks} looks for {at} after {start}");
        }
    }
}

#[test]
fn it_agrees_with_a_sorted_list() {
    let mut rng = StdRng::seed_from_u64(1987);
    let mut wheel = Wheel::new();
    let mut model = [None::<u64>; 60];
    let mut now = 1_000_000_u64;
    for _ in 0..200_000 {
        let owner = rng.random_range(0..model.len());
        match rng.random_range(0..10) {
            0 => {
                wheel.clear(owner);
                model[owner] = None;
            }
            1..6 => {
                let reach = [3, 100, 5_000, 300_000, 40_000_000][rng.random_range(0..5)];
                let at = (now + rng.random_range(0..reach)).saturating_sub(rng.random_range(0..3));
                wheel.set(owner, at);
                model[owner] = Some(at);
            }
            _ => {
                now += [0, 1, 1, 7, 90, 5_000, 1 << 20, 1 << 25][rng.random_range(0..8)];
                let first = model.iter().flatten().min().copied();
                assert!(first.is_none_or(|first| wheel.next().unwrap() <= first.max(now)), "never too late");
                let is_due = |at: &Option<u64>| at.is_some_and(|at| at <= now);
                let mut expected: Vec<usize> = (0..model.len()).filter(|n| is_due(&model[*n])).collect();
                let mut taken = due(&mut wheel, now);
                taken.iter().for_each(|n| model[*n] = None);
                taken.sort_unstable();
                expected.sort_unstable();
                assert_eq!(taken, expected, "at {now}");
            }
        }
        assert_eq!(wheel.deadline(owner), model[owner]);
        assert_eq!(wheel.next().is_none(), model.iter().all(Option::is_none));
    }
}

#[test]
fn setting_and_moving_allocate_nothing() {
    let mut wheel = Wheel::new();
    (0..1000).for_each(|owner| wheel.set(owner, 10));
    let counted = allocation_counter::measure(|| {
        for now in 0..10_000 {
            let owner = usize::try_from(now % 1000).unwrap();
            wheel.set(owner, now * 37 % 100_000);
            while wheel.take_due(now).is_some() {}
        }
    });
    assert_eq!(counted.count_total, 0);
}
