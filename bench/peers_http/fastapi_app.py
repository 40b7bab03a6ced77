"""FastAPI, its ordinary way: a pydantic model in, one out. Of CloudEvents it knows nothing."""

from fastapi import FastAPI
from frames import Frame, Frames, Seen, seen

app = FastAPI()


@app.post("/frame")
async def frame(frame: Frame) -> Seen:
    return seen(frame)


@app.post("/frames")
async def frames(frames: Frames) -> Seen:
    return seen(frames)
