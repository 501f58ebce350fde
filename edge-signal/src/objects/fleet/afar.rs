//! Who is served from afar, in SQL, and telling their rooms that there is a node near them.

use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use shared::geo::Place;
use shared::ids::{NodeId, RoomName};
use worker::{Env, Result, SqlStorage, SqlStorageValue, console_error};

use super::{FleetObject, keys};
use crate::fleet::returns::Afar;
use crate::objects::room::NODE_NEAR_PATH;
use crate::runtime::{self, ROOM};

#[derive(Deserialize)]
struct Row {
    room: RoomName,
    latitude: f64,
    longitude: f64,
    km: f64,
}

/// Notes it, instead of whoever of that room is noted about there.
pub(super) fn note(sql: &SqlStorage, afar: &Afar) -> Result<()> {
    let Place { latitude, longitude } = afar.client;
    let numbers = [latitude, longitude, afar.km].map(SqlStorageValue::Float);
    let values: Vec<_> = key(afar).into_iter().chain(numbers).collect();
    sql.exec("INSERT OR REPLACE INTO afar (room, field, latitude, longitude, km) VALUES (?, ?, ?, ?, ?)", values)?;
    Ok(())
}

fn all(sql: &SqlStorage) -> Result<Vec<Afar>> {
    let rows: Vec<Row> = sql.exec("SELECT room, latitude, longitude, km FROM afar", None)?.to_array()?;
    let afar = |Row { room, latitude, longitude, km }| Afar { room, client: Place { latitude, longitude }, km };
    Ok(rows.into_iter().map(afar).collect())
}

/// Says whether it was noted.
fn forget(sql: &SqlStorage, afar: &Afar) -> Result<bool> {
    Ok(sql.exec("DELETE FROM afar WHERE room = ? AND field = ?", key(afar).to_vec())?.rows_written() > 0)
}

fn key(afar: &Afar) -> [SqlStorageValue; 2] {
    [SqlStorageValue::from(String::from(afar.room.clone())), SqlStorageValue::from(afar.field())]
}

async fn tell(env: &Env, room: &RoomName, node: Place) -> Result<()> {
    let object = runtime::object(env, ROOM, room.as_str())?;
    runtime::call::<()>(&object, NODE_NEAR_PATH, &node).await
}

impl FleetObject {
    /// At a node's heartbeat: once it is back, rooms with people nearby who are served from afar hear of it, a few at a time.
    pub(super) fn call_back(&self, node: &NodeId) -> Result<()> {
        let is_back = self.fleet.borrow().is_back(node);
        if is_back {
            let afar = all(&keys::tables(&self.state)?)?;
            self.fleet.borrow_mut().returns(node, afar);
        }
        let next = self.fleet.borrow_mut().next_told(node);
        let Some((place, rooms)) = next else { return Ok(()) };
        let (env, sql) = (self.env.clone(), keys::tables(&self.state)?);
        let mut told = Vec::new();
        for rows in rooms {
            // Another node may have told it. And what the room asks for when it hears this may be noted anew.
            let known = rows.iter().map(|afar| forget(&sql, afar)).collect::<Result<Vec<_>>>()?;
            told.extend(Some(rows).filter(|_| known.contains(&true)));
        }
        self.state.wait_until(async move {
            let (env, sql) = (&env, &sql);
            let tell = |rows: Vec<Afar>| async move {
                let Some(first) = rows.first() else { return };
                if let Err(error) = tell(env, &first.room, place).await {
                    console_error!("a room cannot be told of a node nearby: {error}");
                    // The next node that is back tells it.
                    if let Err(error) = rows.iter().try_for_each(|afar| note(sql, afar)) {
                        console_error!("and that is forgotten: {error}");
                    }
                }
            };
            stream::iter(told).for_each_concurrent(None, tell).await;
        });
        Ok(())
    }
}
