//go:build !linux

package engine

import "math"

// ReadDelivery knows nothing on this system.
func ReadDelivery(int) Delivery { return Delivery{Acked: math.MaxInt64, Open: true} }
