"""The telephone-codec benchmark for speech marks, and the rest of the watermark's figures.

docs/watermark-benchmark.md says how to run it and how to add a mark.
"""
