"""A LiveKit client on the native SDK that a test drives (driven.py), with the methods of browser/client.js."""

import array
import asyncio
import math
import time

from livekit import rtc

from camera import film
from driven import serve

TOPIC = "test"
WIDTH, HEIGHT, FRAMES_PER_SECOND = 640, 360, 15
SAMPLE_RATE, TONE_HZ, AUDIO_CHUNK_MS = 48_000, 440, 10
POLL_SECONDS = 0.05
# Growth of totalAudioEnergy that is sound, not the decoder's comfort noise.
SOUND = 1e-6
SOURCES = {
    rtc.TrackSource.SOURCE_CAMERA: "camera",
    rtc.TrackSource.SOURCE_MICROPHONE: "microphone",
    rtc.TrackSource.SOURCE_SCREENSHARE: "screen_share",
}


def kind_name(kind):
    return "audio" if kind == rtc.TrackKind.KIND_AUDIO else "video"


class Client:
    """Everything it hears is in `events`."""

    def __init__(self):
        self.room = rtc.Room()
        self.events = []
        self.changed = asyncio.Condition()
        self.tasks = set()
        self.received = {}
        self.published = {}
        # Whose picture is watched: identity -> [last frame, longest time between two], seconds.
        self.watched = {}

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def happened(self, event, **detail):
        self.events.append({"event": event, "at": time.monotonic() * 1000, **detail})
        self.spawn(self.wake())

    async def wake(self):
        async with self.changed:
            self.changed.notify_all()

    async def join(self, url, token, options=None):
        room = self.room

        def named(publication, who):
            return {
                "identity": who.identity,
                "source": SOURCES.get(publication.source, "unknown"),
                "kind": kind_name(publication.kind),
                "trackSid": publication.sid,
            }

        def on_track(track, publication, who):
            self.happened("trackSubscribed", **named(publication, who))
            read = self.read_audio if track.kind == rtc.TrackKind.KIND_AUDIO else self.read_video
            self.spawn(read(track, publication, who.identity))

        def on_data(packet):
            identity = packet.participant.identity if packet.participant else None
            self.happened("data", identity=identity, topic=packet.topic, text=packet.data.decode())

        def on_text(reader, identity):
            async def read():
                self.happened("text", identity=identity, text=await reader.read_all())

            self.spawn(read())

        room.on("participant_connected", lambda who: self.happened("participantConnected", identity=who.identity))
        room.on("participant_disconnected", lambda who: self.happened("participantDisconnected", identity=who.identity))
        room.on("track_subscribed", on_track)
        room.on("track_unsubscribed", lambda _, publication, who: self.happened("trackUnsubscribed", **named(publication, who)))
        room.on("track_muted", lambda who, publication: self.happened("trackMuted", **named(publication, who)))
        room.on("track_unmuted", lambda who, publication: self.happened("trackUnmuted", **named(publication, who)))
        room.on("reconnecting", lambda: self.happened("reconnecting"))
        room.on("reconnected", lambda: self.happened("reconnected"))
        room.on("disconnected", lambda reason: self.happened("disconnected", reason=reason))
        room.on("data_received", on_data)
        room.register_text_stream_handler(TOPIC, on_text)
        self.happened("joining")
        single = (options or {}).get("singlePeerConnection", True)
        await room.connect(url, token, rtc.RoomOptions(single_peer_connection=single))
        self.happened("joined")
        me = room.local_participant
        return {"identity": me.identity, "sid": me.sid, "others": list(room.remote_participants)}

    async def publish(self):
        camera = rtc.VideoSource(WIDTH, HEIGHT)
        microphone = rtc.AudioSource(SAMPLE_RATE, 1)
        sids = []
        for name, track, source in [
            ("camera", rtc.LocalVideoTrack.create_video_track("camera", camera), rtc.TrackSource.SOURCE_CAMERA),
            ("microphone", rtc.LocalAudioTrack.create_audio_track("microphone", microphone), rtc.TrackSource.SOURCE_MICROPHONE),
        ]:
            publication = await self.room.local_participant.publish_track(track, rtc.TrackPublishOptions(source=source))
            self.published[name] = track
            sids.append(publication.sid)
        self.spawn(film(camera, WIDTH, HEIGHT, FRAMES_PER_SECOND))
        self.spawn(self.play(microphone))
        return sids

    async def play(self, source):
        samples = SAMPLE_RATE * AUDIO_CHUNK_MS // 1000
        tone = array.array("h", (int(12_000 * math.sin(2 * math.pi * TONE_HZ * i / SAMPLE_RATE)) for i in range(SAMPLE_RATE)))
        position = 0
        while True:
            chunk = tone[position : position + samples]
            position = (position + samples) % SAMPLE_RATE
            # Waits while its queue is full: this paces the loop.
            await source.capture_frame(rtc.AudioFrame(chunk.tobytes(), SAMPLE_RATE, 1, samples))

    def arrival(self, identity, kind):
        fresh = {"identity": identity, "kind": kind, "framesDecoded": 0, "totalAudioEnergy": 0.0}
        return self.received.setdefault((identity, kind), fresh)

    async def read_video(self, track, publication, identity):
        arrival = self.arrival(identity, "video")
        async for _ in rtc.VideoStream.from_track(track=track):
            arrival["framesDecoded"] += 1
            now = time.monotonic()
            picture = self.watched.setdefault(identity, [now, 0.0])
            picture[:] = now, max(picture[1], now - picture[0])
            if arrival["framesDecoded"] == 1:
                self.happened("firstFrame", identity=identity, source=SOURCES.get(publication.source, "unknown"), kind="video", trackSid=publication.sid)

    async def read_audio(self, track, _, identity):
        arrival = self.arrival(identity, "audio")
        async for event in rtc.AudioStream.from_track(track=track):
            samples = array.array("h", bytes(event.frame.data))
            arrival["totalAudioEnergy"] += sum((s / 32768) ** 2 for s in samples[::16]) / max(1, len(samples) / 16) * event.frame.duration

    async def stats(self):
        return {"tracks": [dict(arrival) for arrival in self.received.values()], "ciphers": []}

    async def stillness(self, identity):
        """Longest time since the last call that somebody's picture stood still, ms."""
        picture = self.watched[identity]
        longest = max(picture[1], time.monotonic() - picture[0])
        picture[1] = 0.0
        return longest * 1000

    async def heard(self, since):
        return [{"index": since + index, **event} for index, event in enumerate(self.events[since:])]

    async def picture(self):
        return [
            {
                "identity": who.identity,
                "sid": who.sid,
                "tracks": [
                    {"sid": p.sid, "source": SOURCES.get(p.source, "unknown"), "muted": p.muted, "subscribed": p.subscribed}
                    for p in who.track_publications.values()
                ],
            }
            for who in self.room.remote_participants.values()
        ]

    async def setMicrophone(self, on):
        track = self.published["microphone"]
        track.unmute() if on else track.mute()

    async def setCamera(self, on):
        track = self.published["camera"]
        track.unmute() if on else track.mute()

    async def sendData(self, text, options=None):
        reliable = (options or {}).get("reliable", True)
        to = (options or {}).get("to") or []
        await self.room.local_participant.publish_data(text, reliable=reliable, topic=TOPIC, destination_identities=to)

    async def sendText(self, text):
        await self.room.local_participant.send_text(text, topic=TOPIC)

    async def mark(self):
        return len(self.events)

    async def waitFor(self, wanted, options):
        since = options.get("since", 0)

        def find():
            found = (i for i in range(since, len(self.events)) if all(self.events[i].get(k) == v for k, v in wanted.items()))
            return next(found, None)

        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait_for(lambda: find() is not None), options["timeoutMs"] / 1000)
            except asyncio.TimeoutError:
                raise TimeoutError(f"no {wanted} in {options['timeoutMs']} ms; heard {self.events}") from None
        index = find()
        return {"index": index, **self.events[index]}

    async def waitForMedia(self, identity, options):
        def progress(kind):
            arrival = self.arrival(identity, kind)
            return arrival["framesDecoded"] if kind == "video" else arrival["totalAudioEnergy"]

        before = {kind: progress(kind) for kind in options["kinds"]}
        deadline = time.monotonic() + options["timeoutMs"] / 1000
        least = {"audio": SOUND, "video": 0}
        while not all(progress(kind) > before[kind] + least[kind] for kind in options["kinds"]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {options['kinds']} of {identity} in {options['timeoutMs']} ms: {await self.stats()}")
            await asyncio.sleep(POLL_SECONDS)
        return await self.stats()

    async def leave(self):
        await self.room.disconnect()


asyncio.run(serve(Client))
