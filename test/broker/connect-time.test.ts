/** A CONNECT has some seconds to come; the seconds in which this process did not look are not the client's fault. */
import { describe, expect, it } from 'vitest'
import { until } from '../waits.ts'
import { connectPacket, openBench, openRaw } from './harness.ts'

/** Does this, and then the whole process does nothing for longer than a CONNECT may take; timers come next in it, before sockets. */
function beBusyAfter(work: () => void): Promise<void> {
  return new Promise(resolve => {
    setImmediate(() => {
      work()
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5_200)
      resolve()
    })
  })
}

describe('the time of a CONNECT', () => {
  it('is kept by one that came while the process was busy', async () => {
    const { broker } = await openBench()
    const clients = await Promise.all(['a', 'b', 'c'].map(() => openRaw(broker.port)))
    await until(() => broker.connections === clients.length)
    await beBusyAfter(() => {
      for (const [n, client] of clients.entries()) client.send(connectPacket({ clientId: `late-${n}` }))
    })
    for (const client of clients) expect(await client.next()).toMatchObject({ cmd: 'connack', returnCode: 0 })
  })

  it('is over for one of which a part came, and for one of which nothing did', async () => {
    const { broker } = await openBench()
    const [half, silent] = await Promise.all([openRaw(broker.port), openRaw(broker.port)])
    half.socket.write(Buffer.from([0x10, 0x20, 0x00]))
    await Promise.all([half.closed, silent.closed])
    await until(() => broker.connections === 0)
  })
})
