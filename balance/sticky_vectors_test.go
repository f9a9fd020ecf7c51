package balance

// What [TestRendezvousVectors] wants. None of it may ever change.

// wantDraws are by the ID of the backend and the key in hexadecimal.
var wantDraws = map[string]uint64{
	" 0":                                 0x1fe08be0c24637de,
	" 1":                                 0x67ccc5fd8bfa09c8,
	" 73a3ea485f2e6049":                  0x95ff851f0c596887,
	"10.0.0.5:9001 0":                    0x172beefca33e8502,
	"10.0.0.5:9001 1":                    0x6d1cd873fd4febd,
	"10.0.0.5:9001 73a3ea485f2e6049":     0x7c0d201f0c1ccd59,
	"a 0":                                0xa0df13d02ef81f31,
	"a 1":                                0xe9df91f9a4e013ad,
	"a 73a3ea485f2e6049":                 0xe141e41dd9ca5084,
	"dc1/node-1/chat-1 0":                0x787aebd04aa6d0a5,
	"dc1/node-1/chat-1 1":                0x37039fc70b33afd9,
	"dc1/node-1/chat-1 73a3ea485f2e6049": 0xfd48ca4929511898,
}

// wantCosts are the bits of the costs, by draw.
var wantCosts = map[uint64]uint64{
	0:                  0x40425e4f7b2737fa,
	1 << 12:            0x4041d1b02751cfe1,
	1 << 40:            0x4030a2b23f33ab73,
	1 << 63:            0x3fe62e42fefa39ed,
	0x123456789abcdef0: 0x400525e973a05652,
	0xfedcba9876543210: 0x3f723eb991354e4c,
	1<<64 - 1:          0x3ca0000000000000,
}

const wantWinners = "5321535553522353235351055355032152553533"
