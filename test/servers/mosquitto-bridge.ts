/**
 * Debian's mosquitto with a bridge, as people put Surgetank beside a broker that they have: what arrives there on `devices/#`
 * goes out to another broker. All of the bridge is as it comes, its notifications, its session and its protocol too, but for
 * the pause before it connects again, which is 5 to 30 seconds. It keeps its messages on disk, as Debian sets it up.
 */
import { userInfo } from 'node:os'
import { type MosquittoProcess, startMosquittoProcess } from './mosquitto-process.ts'

/** Lines of mosquitto.conf for the bridge are added to the default. */
export function startBridge(to: number, more: readonly string[] = []): Promise<MosquittoProcess> {
  return startMosquittoProcess(dir => [
    `user ${userInfo().username}`,
    'persistence true',
    `persistence_location ${dir}/`,
    'connection surgetank',
    `address 127.0.0.1:${to}`,
    'topic devices/# out 1',
    'restart_timeout 1',
    ...more,
  ])
}
