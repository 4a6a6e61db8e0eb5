/** mqtt.js with a persistent session. Arguments and output as `publishing-clients.ts` says. */
import mqtt from 'mqtt'

const [port, id = '', qos, messages, windowSize, tsFrom] = process.argv.slice(2)

const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: id, clean: false, reconnectPeriod: 100 })
client.on('error', () => undefined)
const topic = `devices/${id}/telemetry`
let next = 0
await Promise.all(Array.from({ length: Number(windowSize) }, publishOneByOne))
await client.endAsync()

async function publishOneByOne(): Promise<void> {
  for (let n = next++; n < Number(messages); n = next++) {
    for (let isTaken = false; !isTaken; ) {
      isTaken = await client.publishAsync(topic, payload(n), { qos: Number(qos) === 2 ? 2 : 1 }).then(
        () => true,
        // So the library refuses a message while it sends earlier ones again and is cut; it has kept nothing of it.
        (error: Error) => error.message !== 'Connection closed' && Promise.reject(error),
      )
    }
    process.stdout.write(`acked ${n}\n`)
  }
}

function payload(n: number): string {
  return tsFrom === 'none' ? `{"n":${n}}` : `{"ts":${Number(tsFrom) + n},"values":{"n":${n}}}`
}
