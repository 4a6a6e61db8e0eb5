/**
 * The limits of what one device may send. On by default and not settings: a payload is the same reading everywhere.
 * Beyond a limit a message is quarantined with its reason, never cut short ([G3], [G5]); only of a topic that is too long and of
 * a packet that is too large, the beginning is kept.
 */
export const LIMITS = {
  /** A PUBLISH beyond this is quarantined. */
  packetBytesMax: 256 * 1024,
  /** Any other packet after CONNACK; larger closes the connection. Each filter of a SUBSCRIBE costs CPU, granted or not. */
  otherPacketBytesMax: 16 * 1024,
  /** A PUBLISH beyond this closes the connection. */
  oversizedBytesMax: 8 * 1024 * 1024,
  /** Of an oversized PUBLISH, how much of its payload is kept. */
  oversizedKeptBytes: 1024,
  /** A packet before CONNACK: tokens and certificates stand in passwords. */
  packetBytesMaxBeforeConnack: 64 * 1024,
  /** What all CONNECTs that are under way may take beyond the first 8 KiB of each. */
  connectsBytesMax: 32 * 1024 * 1024,
  /** What the wills of all connections may take beyond the first 8 KiB of each. */
  willsBytesMax: 64 * 1024 * 1024,
  topicBytesMax: 512,
  topicLevelsMax: 16,
  /** Code points, of at most four bytes each. */
  deviceIdCharsMax: 128,
  clientIdBytesMax: 256,
  metricNameCharsMax: 128,
  /** UTF-8 bytes of a text value. */
  textBytesMax: 256,
  payloadDepthMax: 8,
  readingsPerMessageMax: 1000,
  metricsPerDeviceMax: 1000,
  /** Digits of an integer too large for a double. */
  integerDigitsMax: 64,
  /** A device time before this is no time of a reading but a broken clock: 2000-01-01. */
  tsMin: Date.UTC(2000, 0, 1),
} as const
