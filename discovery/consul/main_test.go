package consul

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tidegate/tidegate/internal/consultest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(consultest.Main(m)) }
