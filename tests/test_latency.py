import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcodec.live.latency import LatencyHistogram


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.sampled_from([1, 50, 99, 99.9, 100]))
def test_percentiles_are_within_one_percent(values, percent):
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    exact = np.sort(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.01)


def test_an_empty_histogram_has_no_percentile():
    assert math.isnan(LatencyHistogram().percentile(50))


def test_a_stall_stands_for_the_frames_that_it_held_up():
    histogram = LatencyHistogram()
    histogram.record(100.0, expected_interval_ms=10.0)
    assert histogram.count == 10
    assert histogram.percentile(50) == pytest.approx(50, rel=0.01)


def test_merging_equals_recording_all():
    both, first, second = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    for value in (0.5, 3.0, 7.25):
        first.record(value)
        both.record(value)
    second.record(1000.0)
    both.record(1000.0)
    first.merge(second)
    assert first.summary() == both.summary()
    assert first.buckets() == both.buckets()


def test_extreme_values_are_kept_at_the_edges():
    histogram = LatencyHistogram()
    histogram.record(0.0)
    histogram.record(1e12)
    assert histogram.count == 2
    assert histogram.max_ms == 1e12
    assert len(histogram.buckets()) == 2
