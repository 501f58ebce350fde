//! The room and the agents' object: each tells the other how things stand, until it is heard.

use std::rc::Rc;

use shared::ids::{RoomName, RoomSid};
use worker::{Request, Response, Result, console_error, console_log};

use super::Shell;
use crate::agents::link::{Granted, News, Wishes};
use crate::objects::agents::{OVER_PATH, Over, WISHES_PATH};
use crate::room::Room;
use crate::room::event::{Event, UnixMs};
use crate::runtime::{self, AGENTS, WHOLE};

/// How long until the agents' object is told again that could not be told, milliseconds.
const RETRY_MS: u64 = 5_000;

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
        self.agents_over_used.set(Some(true));
        self.storage().keep_agents_over(&Over { room: room.clone(), sid })
    }

    fn agents_over(&self) -> Result<Option<Over>> {
        if self.agents_over_used.get() == Some(false) {
            return Ok(None);
        }
        let over = self.storage().agents_over()?;
        self.agents_over_used.set(Some(over.is_some()));
        Ok(over)
    }

    /// Tells the agents' object what it does not know, in the background; when to look again.
    pub(super) fn tell_agents(self: &Rc<Self>) -> Result<Option<UnixMs>> {
        let room = self.take_room();
        let waits = room.as_ref().and_then(Room::wishes).is_some();
        self.room.set(room);
        if !waits && self.agents_over()?.is_none() {
            return Ok(None);
        }
        let now = runtime::now();
        if now >= self.agents_deaf_until.get() && self.telling_agents.try_lock().is_some() {
            let shell = Rc::clone(self);
            self.state.wait_until(async move {
                let told = shell.agents_told().await;
                if let Err(error) = told.and(shell.settle().await) {
                    console_error!("agents: {error}");
                }
            });
        }
        Ok(Some(now.after(RETRY_MS)))
    }

    /// Returns when the agents' object knows everything, or cannot be told.
    async fn agents_told(self: &Rc<Self>) -> Result<()> {
        let _turn = self.telling_agents.lock().await;
        let told = async {
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
            Ok::<(), worker::Error>(())
        };
        if let Err(error) = told.await {
            console_log!("the agents' object is not told yet: {error}");
            self.agents_deaf_until.set(runtime::now().after(RETRY_MS));
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
