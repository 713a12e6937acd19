"""From microphone to speaker: pipeline, latency accounting, concealment, calls."""

from streamcodec.live.file_devices import FileDevices
from streamcodec.live.latency import LatencyHistogram
from streamcodec.live.peer import CallPeer
from streamcodec.live.pipeline import Pipeline
from streamcodec.live.policy import LatencyPolicy
from streamcodec.live.receiver import Receiver
from streamcodec.live.sender import Sender
from streamcodec.live.session import Devices, LiveLoopback, PumpThread
from streamcodec.live.udp import UdpCall

__all__ = [
    "CallPeer",
    "Devices",
    "FileDevices",
    "LatencyHistogram",
    "LatencyPolicy",
    "LiveLoopback",
    "Pipeline",
    "PumpThread",
    "Receiver",
    "Sender",
    "UdpCall",
]
