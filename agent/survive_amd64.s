#include "textflag.h"

// filterSent is called by the kernel: DI signal, SI siginfo_t, DX ucontext_t.
TEXT ·filterSent(SB),NOSPLIT|NOFRAME,$0
	CMPL	8(SI), $0 // si_code
	JLE	sent
	MOVQ	·runtimeHandler(SB), AX
	JMP	AX
sent:
	RET

// func filterSentAddress() uintptr
TEXT ·filterSentAddress(SB),NOSPLIT,$0-8
	LEAQ	·filterSent(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
