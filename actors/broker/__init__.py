"""The embedded MQTT broker: amqtt in a child process of its own, behind our connection gate.

The supervisor imports `actors.broker.config` (what it writes for the child) and nothing else from here.
The child may import the standard library, amqtt and `actors.mqtt` only: each library more costs the board memory for ever.
"""
