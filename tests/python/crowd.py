"""Many LiveKit clients on the native SDK in one process that a test drives (driven.py): rooms of two who film themselves
and watch each other."""

import asyncio
import time

from livekit import rtc

from driven import serve

# Small: dozens of encoders share a machine.
WIDTH, HEIGHT, FRAMES_PER_SECOND = 160, 96, 15
POLL_SECONDS = 0.05
# What nobody may hear in a call that goes on.
ENDS = ["disconnected", "participant_connected", "participant_disconnected", "track_subscribed", "track_unsubscribed"]


class Member:
    def __init__(self):
        self.room = rtc.Room()
        self.heard = []
        self.tasks = []
        self.last = None
        self.longest = 0.0

    async def join(self, url, token):
        for event in ENDS:
            self.room.on(event, lambda *_, event=event: self.heard.append(event))
        self.room.on("track_subscribed", lambda track, *_: self.tasks.append(asyncio.create_task(self.watch(track))))
        await self.room.connect(url, token, rtc.RoomOptions(single_peer_connection=True))
        source = rtc.VideoSource(WIDTH, HEIGHT)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False)
        await self.room.local_participant.publish_track(track, options)
        self.tasks.append(asyncio.create_task(self.film(source)))

    async def film(self, source):
        step = 0
        while True:
            luma = bytes((x + step * 3) & 0xFF for x in range(WIDTH)) * HEIGHT
            chroma = bytes([128]) * (WIDTH * HEIGHT // 2)
            source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, luma + chroma))
            step += 1
            await asyncio.sleep(1 / FRAMES_PER_SECOND)

    async def watch(self, track):
        async for _ in rtc.VideoStream.from_track(track=track):
            now = time.monotonic()
            if self.last is not None:
                self.longest = max(self.longest, now - self.last)
            self.last = now


class Crowd:
    def __init__(self):
        self.members = []

    async def join(self, url, tokens):
        """Everyone joins, one after the other, and sees the other."""
        for token in tokens:
            self.members.append(Member())
            await self.members[-1].join(url, token)
        while any(member.last is None for member in self.members):
            await asyncio.sleep(POLL_SECONDS)

    async def mark(self):
        """Everything before this is forgotten."""
        for member in self.members:
            member.heard.clear()
            member.longest = 0.0

    async def stills(self):
        """When everyone has seen a new frame: the longest that each one's picture stood still since the mark, ms."""
        now = time.monotonic()
        while any(member.last < now for member in self.members):
            await asyncio.sleep(POLL_SECONDS)
        return [member.longest * 1000 for member in self.members]

    async def heard(self):
        """What of a call's ends anybody has heard since the mark."""
        return [event for member in self.members for event in member.heard]

    async def leave(self):
        await asyncio.gather(*(member.room.disconnect() for member in self.members))


asyncio.run(serve(Crowd))
