// Encodings as tools print them, written a second time, so that tests do not use the code under
// test.

const base32Digits = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

export function base32Of(text: string): string {
  const bits = [...Buffer.from(text)].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const groups = bits.match(/.{1,5}/g) ?? [];
  const digits = groups.map((group) => base32Digits[parseInt(group.padEnd(5, '0'), 2)]).join('');
  return digits.padEnd(Math.ceil(digits.length / 8) * 8, '=');
}

/** Returns the hexadecimal digits of the bytes with `between` after each byte but the last. */
export function bytesApart(text: string, between: string): string {
  return (Buffer.from(text).toString('hex').match(/../g) ?? []).join(between);
}

/** Returns the lines that `xxd` prints for the text. */
export function xxdOf(text: string): string[] {
  const bytes = Buffer.from(text);
  return Array.from({ length: Math.ceil(bytes.length / 16) }, (_, index) => {
    const row = bytes.subarray(index * 16, index * 16 + 16);
    const digits = row
      .toString('hex')
      .replace(/.{4}(?=.)/g, '$& ')
      .padEnd(39);
    const characters = row.toString('latin1').replace(/[^ -~]/g, '.');
    return `${(index * 16).toString(16).padStart(8, '0')}: ${digits}  ${characters}`;
  });
}
