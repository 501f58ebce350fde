"""What clients on the native SDK film."""

import asyncio

from livekit import rtc


async def film(source, width, height, frames_per_second):
    """A picture that changes all over, so that every frame is worth sending, for as long as it is waited for."""
    step = 0
    while True:
        luma = bytes((x + step * 3) & 0xFF for x in range(width)) * height
        chroma = bytes([128]) * (width * height // 2)
        source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, luma + chroma))
        step += 1
        await asyncio.sleep(1 / frames_per_second)
