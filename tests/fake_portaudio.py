"""A PortAudio without hardware: its devices call back when a test says so, and have every fault that one sets."""

import time
from types import SimpleNamespace

import numpy as np


class FakeStream:
    """Calls back from `tick`, as a device's thread would."""

    def __init__(self, fake, kind, **options):
        if options["device"] in fake.busy:
            raise fake.PortAudioError("Device unavailable")
        self.fake, self.kind, self.options = fake, kind, options
        self.latency, self.active = 0.02, True
        fake.streams.append(self)

    @property
    def time(self):
        if self.fake.gone or not self.fake.driver_s():  # as the binding has it
            raise self.fake.PortAudioError("Error getting stream time")
        return self.fake.driver_s()

    def start(self):
        pass

    def abort(self):
        if self.fake.unplugged:
            raise self.fake.PortAudioError("Internal PortAudio error")
        self.active = False

    close = abort

    def tick(self, adc=0.005, status=None):
        channels = self.options["channels"]
        block = np.full((self.options["blocksize"], channels), 0.25, np.float32)
        block[:, 2 if channels == 2 else 1 :] = 9.0  # what only the first is to be heard of
        try:
            now_s = self.fake.driver_s()
            times = SimpleNamespace(currentTime=now_s, inputBufferAdcTime=now_s - adc, outputBufferDacTime=now_s + adc)
        except self.fake.PortAudioError:
            times = None
        self.options["callback"](block, len(block), times, status)
        return block


class FakePortAudio:
    class PortAudioError(Exception):
        pass

    def __init__(self):
        self.streams, self.busy, self.unplugged, self.gone = [], set(), False, False
        self.ticks_to_unplug = None
        self.rates = {0: {24_000, 48_000}, 1: {48_000}, 2: set()}
        self.clock_s = None
        self.stood_still_s = 0.0
        self.driver_s = self.now_s
        self.channels = {}
        self.apis = [{"name": "ALSA"}]
        self.entries = [
            self.entry("Mic Array", 2, 0, 48_000),
            self.entry("Speakers", 0, 2, 48_000),
            self.entry("Odd box", 1, 1, 96_000),
        ]

    @staticmethod
    def entry(name, n_in, n_out, rate_hz):
        return {"name": name, "hostapi": 0, "max_input_channels": n_in, "max_output_channels": n_out,
                "default_samplerate": float(rate_hz)}  # fmt: skip

    def now_s(self):
        """Clock of the program, which leaps where a test says that the program stood still."""
        return (time.monotonic() if self.clock_s is None else self.clock_s) + self.stood_still_s

    def query_hostapis(self, index=None):
        return self._told(self.apis, index)

    def query_devices(self, device=None, kind=None):
        if kind is None:
            return self._told(self.entries, device)
        column = f"max_{kind}_channels"
        for index, entry in enumerate(self.entries):
            if isinstance(entry, Exception):
                raise entry
            if entry[column]:
                return {**entry, "index": index}
        raise self.PortAudioError("no default")

    def _told(self, entries, index):
        """All of them, or one; an exception among them is raised, as the binding does."""
        if index is not None and index >= len(entries):
            raise self.PortAudioError(f"Error querying {index}")
        wanted = entries if index is None else [entries[index]]
        for entry in wanted:
            if isinstance(entry, Exception):
                raise entry
        return wanted if index is None else wanted[0]

    def check_input_settings(self, device, channels, dtype, samplerate):
        if channels not in self.channels.get(device, {1, 2}):
            raise self.PortAudioError("Invalid number of channels")
        if samplerate not in self.rates[device]:
            raise self.PortAudioError("Invalid sample rate")

    check_output_settings = check_input_settings

    def InputStream(self, **options):
        return FakeStream(self, "input", **options)

    def OutputStream(self, **options):
        return FakeStream(self, "output", **options)
