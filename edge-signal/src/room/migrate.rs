//! Rows that an older version wrote, made into those of this version, step by step. **A room of a newer version is left as it
//! is: nobody knows what its rows mean.** Pure: rows in, changed rows out.

use serde_json::Value;

use super::effect::{RowChange, TABLES};
use super::record::LAYOUT;
use super::snapshot::{RestoreError, StoredRow};

/// A row while it is migrated: table, key, value.
type Migrated = (&'static str, String, Value);
/// Takes all rows of a room from one layout to the next.
type Step = fn(&mut Vec<Migrated>);

/// The first one takes layout 1 to layout 2, and so on. **What stands here was deployed: it is never changed, only added to.**
const STEPS: [Step; 1] = [regions];

// Each layout but the first has its step.
const _: () = assert!(STEPS.len() + 1 == LAYOUT as usize, "a new layout needs a step");

/// Layout 2 keeps rooms to a region; those of before are kept to none.
fn regions(rows: &mut Vec<Migrated>) {
    for (_, _, value) in rows.iter_mut().filter(|(table, _, _)| *table == "room") {
        if let Some(room) = value.as_object_mut() {
            room.insert("region".to_owned(), Value::Null);
        }
    }
}

/// What has to be written so that this version can read the rows; nothing, if it can already, or if there is no room.
///
/// # Errors
/// [`RestoreError::Newer`]: they are to be left alone. Any other: they are damaged.
pub fn migrate(rows: &[StoredRow]) -> Result<Vec<RowChange>, RestoreError> {
    let Some((_, _, room)) = rows.iter().find(|(table, _, _)| table == "room") else { return Ok(Vec::new()) };
    let found = layout(&read("room", room)?)?;
    match found {
        LAYOUT => return Ok(Vec::new()),
        0 => return Err(RestoreError::Layout(found)),
        newer if newer > LAYOUT => return Err(RestoreError::Newer(newer)),
        _ => {}
    }
    apply(rows, found, &STEPS, LAYOUT)
}

/// Applies the steps that lead from one layout to another.
fn apply(rows: &[StoredRow], from: u32, steps: &[Step], to: u32) -> Result<Vec<RowChange>, RestoreError> {
    let mut all = Vec::with_capacity(rows.len());
    for (name, key, value) in rows {
        let table = TABLES.into_iter().find(|known| known == name);
        let table = table.ok_or_else(|| RestoreError::UnknownTable(name.clone()))?;
        all.push((table, key.clone(), read(table, value)?));
    }
    let before = all.clone();
    let done = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
    steps.iter().skip(done).for_each(|step| step(&mut all));
    for (_, _, value) in all.iter_mut().filter(|(table, _, _)| *table == "room") {
        if let Some(room) = value.as_object_mut() {
            room.insert("layout".to_owned(), to.into());
        }
    }
    let is_in = |rows: &[Migrated], row: &Migrated| rows.iter().any(|(table, key, _)| (table, key) == (&row.0, &row.1));
    let gone = before.iter().filter(|row| !is_in(&all, row));
    let gone = gone.map(|(table, key, _)| RowChange { table, key: key.clone(), value: None });
    let changed = all.iter().filter(|row| !before.contains(row));
    let changed =
        changed.map(|(table, key, value)| RowChange { table, key: key.clone(), value: Some(value.to_string()) });
    Ok(gone.chain(changed).collect())
}

fn read(table: &'static str, value: &str) -> Result<Value, RestoreError> {
    serde_json::from_str(value).map_err(|source| RestoreError::BadRow { table, source })
}

/// Where it stands is the same in all layouts.
fn layout(room: &Value) -> Result<u32, RestoreError> {
    let layout = room.get("layout").and_then(Value::as_u64).unwrap_or_default();
    u32::try_from(layout).map_err(|_| RestoreError::Newer(u32::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::ids::{RANDOM_LEN, RoomName, RoomSid};

    use super::super::Room;
    use super::super::event::UnixMs;
    use super::super::record::Record;
    use super::*;

    fn row(table: &str, key: &str, value: &Value) -> StoredRow {
        (table.to_owned(), key.to_owned(), value.to_string())
    }

    /// The row `room` as the first version wrote it, field by field.
    fn first_version() -> Value {
        json!({
            "layout": 1, "name": "den", "sid": "RM_aaE3Qtj7WZ2s", "created": true, "created_at": 1_000,
            "empty_timeout_secs": 300, "departure_timeout_secs": 20, "max_participants": 7, "metadata": "m",
            "empty_since": null, "told": { "participants": 0, "publishers": 0 }, "told_at": 0,
            "placing": "Idle", "lost_node": null, "over": false,
        })
    }

    fn written(changes: Vec<RowChange>) -> Vec<StoredRow> {
        changes.into_iter().map(|row| (row.table.to_owned(), row.key, row.value.unwrap())).collect()
    }

    #[test]
    fn a_room_of_the_first_version_is_read() {
        let old = [row("room", "room", &first_version())];
        assert!(Room::restore(UnixMs(2_000), old.to_vec(), &[], &[]).is_err(), "not as it is");
        let new = written(migrate(&old).unwrap());
        let room = Room::restore(UnixMs(2_000), new.clone(), &[], &[]).unwrap();
        assert_eq!((room.name().as_str(), room.sid().as_str()), ("den", "RM_aaE3Qtj7WZ2s"));
        let record: Value = serde_json::from_str(&new[0].2).unwrap();
        assert_eq!((&record["layout"], &record["max_participants"]), (&json!(LAYOUT), &json!(7)));
        assert!(migrate(&new).unwrap().is_empty(), "once is enough");
    }

    #[test]
    fn what_is_current_or_not_there_is_not_touched() {
        assert!(migrate(&[]).unwrap().is_empty());
        let record = Record::new(RoomName::try_from("den").unwrap(), RoomSid::from_random([7; RANDOM_LEN]), UnixMs(1));
        let rows = [row("room", "room", &serde_json::to_value(&record).unwrap())];
        assert!(migrate(&rows).unwrap().is_empty());
    }

    #[test]
    fn newer_rows_are_left_alone_and_damaged_ones_are_no_newer_ones() {
        let of = |layout: Value| migrate(&[row("room", "room", &json!({ "layout": layout }))]);
        assert!(matches!(of(json!(LAYOUT + 1)), Err(RestoreError::Newer(found)) if found == LAYOUT + 1));
        assert!(matches!(of(json!(u64::MAX)), Err(RestoreError::Newer(_))));
        assert!(matches!(of(json!("one")), Err(RestoreError::Layout(0))));
        let damaged = ("room".to_owned(), "room".to_owned(), "{".to_owned());
        assert!(matches!(migrate(&[damaged]), Err(RestoreError::BadRow { .. })));
    }

    #[test]
    fn each_step_runs_once_in_turn_and_only_what_changed_is_written() {
        fn rename(rows: &mut Vec<Migrated>) {
            for (_, key, _) in rows.iter_mut().filter(|(table, _, _)| *table == "node") {
                *key = format!("{key}-2");
            }
        }
        fn count(rows: &mut Vec<Migrated>) {
            rows.iter_mut().for_each(|(table, _, value)| {
                if *table == "session" {
                    value["steps"] = json!(value["steps"].as_u64().unwrap() + 1);
                }
            });
        }
        let rows = [
            row("room", "room", &json!({ "layout": 2 })),
            row("node", "a", &json!({})),
            row("session", "s", &json!({ "steps": 0 })),
            row("participant", "p", &json!({})),
        ];
        let never: Step = |_| panic!("this layout was left behind long ago");
        let mut changes: Vec<_> = apply(&rows, 2, &[never, rename, count], 4).unwrap();
        changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let shown: Vec<_> = changes.iter().map(|row| (row.table, row.key.as_str(), row.value.as_deref())).collect();
        assert_eq!(
            shown,
            [
                ("node", "a", None),
                ("node", "a-2", Some("{}")),
                ("room", "room", Some(r#"{"layout":4}"#)),
                ("session", "s", Some(r#"{"steps":1}"#)),
            ]
        );
    }
}
