"""A LiveKit client on the native SDK that films itself and watches all others of its room."""

import asyncio
import time
from collections import defaultdict

from livekit import rtc

from camera import film

# Small: dozens of encoders share a machine.
WIDTH, HEIGHT, FRAMES_PER_SECOND = 160, 96, 15
POLL_SECONDS = 0.05
# What nobody may hear in a call that goes on.
ENDS = ["disconnected", "participant_connected", "participant_disconnected", "track_subscribed", "track_unsubscribed"]


class Picture:
    """Somebody's camera as another one sees it: when the last frame came, and the longest that none did, seconds."""

    def __init__(self):
        self.last = None
        self.longest = 0.0

    def frame(self, now):
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now


class Member:
    def __init__(self):
        self.room = rtc.Room()
        self.heard = []
        self.resumed = 0
        self.tasks = []
        self.pictures = defaultdict(Picture)

    async def join(self, url, token):
        for event in ENDS:
            self.room.on(event, lambda *_, event=event: self.heard.append(event))
        self.room.on("reconnected", self.has_resumed)
        self.room.on("track_subscribed", self.begin_to_watch)
        await self.room.connect(url, token, rtc.RoomOptions(single_peer_connection=True))
        source = rtc.VideoSource(WIDTH, HEIGHT)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False)
        await self.room.local_participant.publish_track(track, options)
        self.tasks.append(asyncio.create_task(film(source, WIDTH, HEIGHT, FRAMES_PER_SECOND)))

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await self.room.disconnect()

    def has_resumed(self):
        self.resumed += 1

    def begin_to_watch(self, track, _publication, participant):
        self.tasks.append(asyncio.create_task(self.watch(track, self.pictures[participant.identity])))

    async def watch(self, track, picture):
        async for _ in rtc.VideoStream.from_track(track=track):
            picture.frame(time.monotonic())

    def has_seen(self, identity, since):
        """Whether a frame of somebody was decoded after this moment."""
        last = self.pictures[identity].last
        return last is not None and last > since
