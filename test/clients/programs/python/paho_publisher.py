"""Paho's Python client with a persistent session. Arguments and output as `publishing-clients.ts` says."""

import queue
import sys
import threading

import paho.mqtt.client as mqtt

port, device, qos, messages, window_size, ts_from = sys.argv[1:7]
window = threading.Semaphore(int(window_size))
numbers = {}
# Held while a message is handed to the client: its acknowledgement may come before its packet identifier is noted. The
# client calls back under locks of its own, so that a thread of ours takes what it says.
noting = threading.Lock()
acknowledged = queue.Queue()


def payload(n):
    if ts_from == "none":
        return '{"n":%d}' % n
    return '{"ts":%d,"values":{"n":%d}}' % (int(ts_from) + n, n)


def say():
    for _ in range(int(messages)):
        mid = acknowledged.get()
        with noting:
            number = numbers.pop(mid)
        print("acked", number, flush=True)
        window.release()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, device, clean_session=False)
client.on_publish = lambda client, userdata, mid, reason_code, properties: acknowledged.put(mid)
client.reconnect_delay_set(0.05, 0.25)
client.max_inflight_messages_set(int(window_size))
client.connect("127.0.0.1", int(port))
client.loop_start()
saying = threading.Thread(target=say)
saying.start()
for n in range(int(messages)):
    window.acquire()
    with noting:
        # A message that is published between two connections is kept too, and sent by the next one.
        numbers[client.publish(f"devices/{device}/telemetry", payload(n), int(qos)).mid] = n
saying.join()
client.disconnect()
