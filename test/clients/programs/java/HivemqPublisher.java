import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import com.hivemq.client.mqtt.mqtt3.Mqtt3Client;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client with a persistent session. Arguments and output as `publishing-clients.ts` says. */
public final class HivemqPublisher {
  public static void main(String[] args) throws Exception {
    int port = Integer.parseInt(args[0]);
    String id = args[1];
    MqttQos qos = MqttQos.fromCode(Integer.parseInt(args[2]));
    int messages = Integer.parseInt(args[3]);
    Semaphore window = new Semaphore(Integer.parseInt(args[4]));
    Mqtt3AsyncClient client =
        Mqtt3Client.builder()
            .identifier(id)
            .serverHost("127.0.0.1")
            .serverPort(port)
            .automaticReconnect()
            .initialDelay(50, TimeUnit.MILLISECONDS)
            .maxDelay(250, TimeUnit.MILLISECONDS)
            .applyAutomaticReconnect()
            .buildAsync();
    client.connectWith().cleanSession(false).keepAlive(60).send().join();
    CountDownLatch left = new CountDownLatch(messages);
    for (int n = 0; n < messages; n++) {
      final int number = n;
      window.acquire();
      client
          .publishWith()
          .topic("devices/" + id + "/telemetry")
          .qos(qos)
          .payload(payload(args[5], n).getBytes("UTF-8"))
          .send()
          .whenComplete(
              (published, error) -> {
                say(error == null ? "acked " + number : "failed " + number + " " + error);
                window.release();
                left.countDown();
              });
    }
    left.await();
    client.disconnect().join();
    System.exit(0);
  }

  private static String payload(String tsFrom, int n) {
    return tsFrom.equals("none")
        ? "{\"n\":" + n + "}"
        : "{\"ts\":" + (Long.parseLong(tsFrom) + n) + ",\"values\":{\"n\":" + n + "}}";
  }

  private static synchronized void say(String line) {
    System.out.println(line);
    System.out.flush();
  }
}
