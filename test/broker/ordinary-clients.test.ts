import { connectAsync, type IClientOptions, type MqttClient } from 'mqtt'
import { describe, expect, it, onTestFinished } from 'vitest'
import { until } from '../waits.ts'
import { openBench } from './harness.ts'

async function openMqtt(port: number, options: IClientOptions = {}): Promise<MqttClient> {
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 20, ...options })
  onTestFinished(() => client.endAsync(true))
  return client
}

describe('mqtt.js', () => {
  it('publishes with its defaults, at every QoS, and waits for the log', async () => {
    const { broker, ingest } = await openBench()
    const client = await openMqtt(broker.port)
    let durable = 0
    ingest.onOffer = () =>
      setImmediate(() => {
        durable = ingest.offered.length
        ingest.settle()
      })
    for (const qos of [0, 1, 2] as const) {
      await client.publishAsync('devices/press-17/telemetry', `{"qos":${qos}}`, { qos })
      if (qos > 0) expect(durable).toBe(qos + 1)
    }
    expect(ingest.offered.map(publish => publish.payload.toString())).toEqual(['{"qos":0}', '{"qos":1}', '{"qos":2}'])
  })

  it('publishes QoS 0 and ends at once: nothing is lost on the way', async () => {
    const { broker, ingest } = await openBench()
    const client = await openMqtt(broker.port)
    for (let i = 0; i < 500; i++) client.publish('devices/press-17/telemetry', `${i}`)
    await client.endAsync()
    await until(() => ingest.offered.length === 500)
  })

  it('sends again what was not acknowledged when the connection broke', async () => {
    const { broker, ingest } = await openBench()
    const client = await openMqtt(broker.port, { clientId: 'press-17' })
    const published = [1, 2, 3].map(n => client.publishAsync('devices/press-17/telemetry', `${n}`, { qos: 1 }))
    await until(() => ingest.held === 3)
    client.stream.destroy()
    // It sends them again one by one, each after the acknowledgement of the one before.
    await until(() => ingest.held === 4)
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    ingest.settle()
    await Promise.all(published)
    expect(ingest.offered.map(publish => publish.payload.toString())).toEqual(['1', '2', '3', '1', '2', '3'])
  })

  it('finishes a QoS 2 handshake that was cut after PUBREC', async () => {
    const { broker, ingest } = await openBench()
    const client = await openMqtt(broker.port, { clientId: 'press-17', clean: false })
    client.once('packetreceive', () => client.stream.destroy())
    const published = client.publishAsync('devices/press-17/telemetry', '1', { qos: 2 })
    ingest.onOffer = () => setImmediate(() => ingest.settle())
    await until(() => ingest.offered.length > 0)
    ingest.settle()
    await published
  })

  it('is told offline by its will, and online by its next connection', async () => {
    const { broker, space, ingest } = await openBench()
    ingest.onOffer = publish => {
      space.known.add(publish.device)
      setImmediate(() => ingest.settle())
    }
    const topic = 'devices/press-17/status'
    const will = { topic, payload: Buffer.from('offline'), qos: 1 as const, retain: true }
    const client = await openMqtt(broker.port, { clientId: 'press-17', will, reconnectPeriod: 0 })
    await client.publishAsync(topic, 'online', { qos: 1, retain: true })
    client.publish('devices/press-17/telemetry', '{"a":1}', { qos: 1 })
    await until(() => space.online('press-17') === true)
    client.stream.destroy()
    await until(() => space.online('press-17') === false)
    await openMqtt(broker.port, { clientId: 'press-17', will })
    await until(() => space.online('press-17') === true)
  })

  it('learns that it may not listen to telemetry, and may to its commands', async () => {
    const { broker } = await openBench()
    const client = await openMqtt(broker.port, { clientId: 'press-17' })
    await expect(client.subscribeAsync('devices/#')).rejects.toThrow()
    const granted = await client.subscribeAsync('devices/press-17/cmd/restart', { qos: 1 })
    expect(granted).toMatchObject([{ topic: 'devices/press-17/cmd/restart', qos: 1 }])
    await client.unsubscribeAsync('devices/press-17/cmd/restart')
  })

  it('learns that MQTT 5 is not spoken here', async () => {
    const { broker } = await openBench()
    const refused = connectAsync(`mqtt://127.0.0.1:${broker.port}`, { protocolVersion: 5, reconnectPeriod: 0 })
    await expect(refused).rejects.toThrow('Unsupported Protocol Version')
  })
})
