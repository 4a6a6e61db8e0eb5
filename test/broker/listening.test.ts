import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, it } from 'vitest'
import { cannotListen } from '../../errors.ts'
import { openBench } from './harness.ts'

it('listens on the address that it is given and on no other [G6]', async () => {
  let isElsewhere = true
  // Somebody else may listen at the same port there.
  for (let tries = 0; isElsewhere && tries < 5; tries++) {
    const { broker } = await openBench({ listen: '127.0.0.2' })
    expect(await accepts('127.0.0.2', broker.port)).toBe(true)
    isElsewhere = await accepts('127.0.0.1', broker.port)
  }
  expect(isElsewhere).toBe(false)
})

async function accepts(address: string, port: number): Promise<boolean> {
  const socket = connect(port, address)
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
    return false
  } finally {
    socket.destroy()
  }
}

it('refuses an address that is not of this machine with a sentence', async () => {
  await expect(openBench({ listen: '192.0.2.1' })).rejects.toMatchObject({
    code: 'setting_invalid',
    message: expect.stringContaining("SURGETANK_LISTEN is '192.0.2.1', which is no address of this machine."),
  })
})

it('refuses a port that only the superuser may have with a sentence', () => {
  const error = Object.assign(new Error('listen EACCES'), { code: 'EACCES' })
  expect(cannotListen('MQTT', '127.0.0.1', 883, error)).toMatchObject({
    code: 'setting_invalid',
    message: expect.stringContaining('SURGETANK_MQTT_PORT is 883, and this user may not listen there'),
  })
})

it('refuses a port that is taken with a sentence, and writes no line beside it', async () => {
  const { broker } = await openBench()
  const lines: string[] = []
  await expect(openBench({ port: broker.port, lines })).rejects.toMatchObject({ code: 'port_in_use' })
  expect(lines).toEqual([])
})
