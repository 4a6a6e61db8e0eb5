import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.MqttAsyncClient;
import org.eclipse.paho.client.mqttv3.MqttCallback;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttException;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Paho's Java client with a persistent session. Arguments and output as `publishing-clients.ts` says. */
public final class PahoPublisher {
  /** By packet identifier. */
  private static final Map<Integer, Integer> NUMBERS = new HashMap<>();

  public static void main(String[] args) throws Exception {
    String id = args[1];
    int qos = Integer.parseInt(args[2]);
    int messages = Integer.parseInt(args[3]);
    Semaphore window = new Semaphore(Integer.parseInt(args[4]));
    MqttAsyncClient client = new MqttAsyncClient("tcp://127.0.0.1:" + args[0], id, new MemoryPersistence());
    MqttConnectOptions options = new MqttConnectOptions();
    options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
    options.setCleanSession(false);
    options.setAutomaticReconnect(true);
    options.setMaxReconnectDelay(1000);
    options.setMaxInflight(1000);
    LinkedBlockingQueue<Integer> delivered = new LinkedBlockingQueue<>();
    client.setCallback(
        new MqttCallback() {
          public void connectionLost(Throwable cause) {}

          public void messageArrived(String topic, MqttMessage message) {}

          /** Also of a message whose own token failed with its connection, and that a later one sent again. */
          public void deliveryComplete(IMqttDeliveryToken token) {
            delivered.add(token.getMessageId());
          }
        });
    client.connect(options).waitForCompletion();
    Thread saying =
        new Thread(
            () -> {
              for (int said = 0; said < messages; said++) {
                System.out.println("acked " + numberOf(delivered));
                window.release();
              }
            });
    saying.start();
    for (int n = 0; n < messages; n++) {
      window.acquire();
      publish(client, "devices/" + id + "/telemetry", payload(args[5], n), qos, n);
    }
    saying.join();
    System.exit(0);
  }

  private static int numberOf(LinkedBlockingQueue<Integer> delivered) {
    try {
      int packet = delivered.take();
      // Held while a message is handed to the client: it may be delivered before its packet identifier is noted.
      synchronized (NUMBERS) {
        return NUMBERS.remove(packet);
      }
    } catch (InterruptedException error) {
      throw new IllegalStateException(error);
    }
  }

  /** A publish that the client does not take (32104: between two connections, 32202: it counts too many) is tried again. */
  private static void publish(MqttAsyncClient client, String topic, String payload, int qos, int n) throws Exception {
    for (; ; ) {
      try {
        synchronized (NUMBERS) {
          NUMBERS.put(client.publish(topic, payload.getBytes("UTF-8"), qos, false).getMessageId(), n);
        }
        return;
      } catch (MqttException refused) {
        if (refused.getReasonCode() != 32104 && refused.getReasonCode() != 32202) throw refused;
        Thread.sleep(20);
      }
    }
  }

  private static String payload(String tsFrom, int n) {
    return tsFrom.equals("none")
        ? "{\"n\":" + n + "}"
        : "{\"ts\":" + (Long.parseLong(tsFrom) + n) + ",\"values\":{\"n\":" + n + "}}";
  }
}
