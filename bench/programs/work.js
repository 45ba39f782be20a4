// What a program of node does, for so many seconds of CPU time.
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }
function tree(n) { return n == 0 ? {} : {left: tree(n - 1), right: tree(n - 1), n: [n, n]}; }
let sink = 0;
while (process.cpuUsage().user < Number(process.argv[2]) * 1e6) {
  sink += fib(18);
  const text = JSON.stringify(tree(8));
  sink += JSON.stringify(JSON.parse(text)).length;
  sink += 'a1b22'.repeat(50).replace(/\d+/g, m => m * 2).length;
  const counts = new Map();
  for (const word of text.split(',')) counts.set(word, (counts.get(word) || 0) + 1);
  sink += [...counts.entries()].sort((a, b) => a[1] - b[1] || (a[0] < b[0] ? -1 : 1)).length;
}
if (sink == 1) console.log(sink);
