/** mqtt.js with a persistent session. Arguments and output as `publishing-clients.ts` says. */
import mqtt from 'mqtt'

const [port, id = '', qos, messages, windowSize, tsFrom] = process.argv.slice(2)

const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { clientId: id, clean: false, reconnectPeriod: 100 })
client.on('error', () => undefined)
let next = 0
await Promise.all(Array.from({ length: Number(windowSize) }, publishOneByOne))
await client.endAsync()

async function publishOneByOne(): Promise<void> {
  for (let n = next++; n < Number(messages); n = next++) {
    await client.publishAsync(`devices/${id}/telemetry`, payload(n), { qos: Number(qos) === 2 ? 2 : 1 }).then(
      () => process.stdout.write(`acked ${n}\n`),
      error => process.stdout.write(`failed ${n} ${error}\n`),
    )
  }
}

function payload(n: number): string {
  return tsFrom === 'none' ? `{"n":${n}}` : `{"ts":${Number(tsFrom) + n},"values":{"n":${n}}}`
}
