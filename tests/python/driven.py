"""What a test drives by lines of JSON: one request a line on stdin, { id, name, args }; one answer a line on stdout,
{ id, ok } or { id, error }.
"""

import asyncio
import json
import sys
import threading


async def serve(make_client):
    """Answers requests with the methods of a client until stdin closes; then it leaves."""
    client = make_client()
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    async def handle(request):
        try:
            result = await getattr(client, request["name"])(*request.get("args", []))
            answer = {"id": request["id"], "ok": result}
        except Exception as error:  # goes to the test, whatever it is
            answer = {"id": request["id"], "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)

    def read_requests():
        for line in sys.stdin:
            asyncio.run_coroutine_threadsafe(handle(json.loads(line)), loop)
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=read_requests, daemon=True).start()
    print(json.dumps({"id": 0, "ok": "livekit for Python"}), flush=True)
    await closed.wait()
    await client.leave()
