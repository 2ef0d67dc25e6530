"""MQTT 3.1.1 itself: packets as bytes, topics and filters. No I/O; used by the embedded broker and by the bridge.

May import the standard library only: the broker's process pays for whatever comes with it.
"""
