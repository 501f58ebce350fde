"""Many LiveKit clients on the native SDK in one process that a test drives (driven.py): rooms of two who film themselves
and watch each other."""

import asyncio
import time

from driven import serve
from member import POLL_SECONDS, Member


class Crowd:
    def __init__(self):
        self.members = []

    async def join(self, url, tokens):
        """Everyone joins, one after the other, and sees the other."""
        for token in tokens:
            self.members.append(Member())
            await self.members[-1].join(url, token)
        while not all(member.pictures for member in self.members):
            await asyncio.sleep(POLL_SECONDS)
        await self.all_have_seen(0.0)

    async def mark(self):
        """Everything before this is forgotten."""
        for member in self.members:
            member.heard.clear()
        for picture in self.pictures():
            picture.longest = 0.0

    async def stills(self):
        """When everyone has seen a new frame: the longest that each one's picture stood still since the mark, ms."""
        await self.all_have_seen(time.monotonic())
        return [picture.longest * 1000 for picture in self.pictures()]

    async def heard(self):
        """What of a call's ends anybody has heard since the mark."""
        return [event for member in self.members for event in member.heard]

    async def resumed(self):
        """How often anybody has come back on a new socket."""
        return sum(member.resumed for member in self.members)

    async def leave(self):
        await asyncio.gather(*(member.leave() for member in self.members))

    async def all_have_seen(self, since):
        while not all(member.has_seen(identity, since) for member in self.members for identity in member.pictures):
            await asyncio.sleep(POLL_SECONDS)

    def pictures(self):
        return [picture for member in self.members for picture in member.pictures.values()]


asyncio.run(serve(Crowd))
