//! The room and the agents' object: each tells the other how things stand, until it is heard.

use std::rc::Rc;

use shared::ids::{RoomName, RoomSid};
use worker::{Request, Response, Result};

use super::Shell;
use crate::agents::link::{Granted, News, Wishes};
use crate::objects::agents::{OVER_PATH, Over, WISHES_PATH};
use crate::room::Room;
use crate::room::event::{Event, UnixMs};
use crate::runtime::{self, AGENTS, WHOLE};

/// How long until the agents' object is told again that could not be told, milliseconds.
pub(super) const RETRY_MS: u64 = 5_000;

impl Shell {
    /// What the agents' object says of workers and jobs; answered with whether it is this room's.
    pub(super) async fn agents_news(self: &Rc<Self>, request: &mut Request) -> Result<Response> {
        let news: News = serde_json::from_str(&request.text().await?)?;
        let room = self.take_room();
        let known = room.as_ref().is_some_and(|room| room.is_created() && *room.sid() == news.sid);
        self.room.set(room);
        if known {
            self.handle(Event::AgentsNews(Box::new(news)))?;
        }
        runtime::text(200, if known { "true" } else { "false" })
    }

    /// Remembers, over the end of the room, that the agents' object is to forget it.
    pub(super) fn keep_agents_over(&self, room: &RoomName, sid: RoomSid) -> Result<()> {
        self.telling_agents.keeps();
        self.storage().keep_agents_over(&Over { room: room.clone(), sid })
    }

    fn agents_over(&self) -> Result<Option<Over>> {
        let read = || Ok(self.storage().agents_over()?.into_iter().collect());
        Ok(self.telling_agents.kept(read)?.pop())
    }

    /// Tells the agents' object what it does not know, in the background; when to look again.
    pub(super) fn tell_agents(self: &Rc<Self>) -> Result<Option<UnixMs>> {
        let room = self.take_room();
        let wishes = room.as_ref().and_then(Room::wishes).is_some();
        self.room.set(room);
        let waits = wishes || self.agents_over()?.is_some();
        Ok(waits.then(|| self.tell(|shell| &shell.telling_agents, Self::agents_told)))
    }

    /// Returns when the agents' object knows everything, or cannot be told.
    async fn agents_told(self: Rc<Self>) -> Result<()> {
        while let Some(over) = self.agents_over()? {
            let agents = runtime::object(&self.env, AGENTS, WHOLE)?;
            runtime::call::<()>(&agents, OVER_PATH, &over).await?;
            self.storage().drop_agents_over(&over)?;
        }
        while let Some(wishes) = self.wishes() {
            let agents = runtime::object(&self.env, AGENTS, WHOLE)?;
            let granted = Box::new(runtime::call::<Granted>(&agents, WISHES_PATH, &wishes).await?);
            // Of a room that ended meanwhile nothing is wanted any more: that is told next.
            if self.is_room(&wishes.sid) {
                self.handle(Event::AgentsGranted { wishes: Box::new(wishes), granted })?;
            }
        }
        Ok(())
    }

    fn wishes(&self) -> Option<Wishes> {
        let room = self.take_room();
        let wishes = room.as_ref().and_then(Room::wishes);
        self.room.set(room);
        wishes
    }

    fn is_room(&self, sid: &RoomSid) -> bool {
        let room = self.take_room();
        let same = room.as_ref().is_some_and(|room| room.sid() == sid);
        self.room.set(room);
        same
    }
}
