"""LiveKit clients on the native SDK in one process that a test drives (driven.py): they come and go while everything
breaks."""

import asyncio
import time

from driven import serve
from member import POLL_SECONDS, Member

# Between two attempts to get in while something is broken.
RETRY_SECONDS = 0.5


class Chaos:
    def __init__(self):
        # By room, by identity.
        self.rooms = {}

    async def enter(self, url, room, identity, token):
        """Joins and publishes; tries again for as long as something is broken. How often it tried."""
        attempts = 0
        while True:
            attempts += 1
            member = Member()
            try:
                await member.join(url, token)
                break
            except Exception:  # a client's app cannot tell either what is broken
                await member.leave()
                await asyncio.sleep(RETRY_SECONDS)
        self.rooms.setdefault(room, {})[identity] = member
        return attempts

    async def quit(self, room, identity):
        await self.rooms[room].pop(identity).leave()

    async def blind(self, seconds):
        """Who has no new frame of whom so many seconds later, if not before."""
        since = time.monotonic()
        while True:
            blind = [
                f"{one} in {room} sees nothing of {other}"
                for room, members in self.rooms.items()
                for one in members
                for other in members
                if one != other and not members[one].has_seen(other, since)
            ]
            if not blind or time.monotonic() > since + seconds:
                return blind
            await asyncio.sleep(POLL_SECONDS)

    async def ended(self):
        """Whose call has ended without their leaving."""
        return [
            f"{identity} in {room}"
            for room, members in self.rooms.items()
            for identity, member in members.items()
            if "disconnected" in member.heard
        ]

    async def strangers(self):
        """Whom somebody takes to be there who is not."""
        return [
            f"{one} in {room} thinks {other.identity} is there"
            for room, members in self.rooms.items()
            for one, member in members.items()
            for other in member.room.remote_participants.values()
            if other.identity not in members
        ]

    async def leave(self):
        members = [member for members in self.rooms.values() for member in members.values()]
        await asyncio.gather(*(member.leave() for member in members))


asyncio.run(serve(Chaos))
