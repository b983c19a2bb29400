; steps[y][x] = how many times z = z*z + c stays within |z| <= 2, at most `limit`; one work-item a pixel, blocks of 32 x 8.
; Nothing is contracted to fused operations, so that a CPU gets the same bits.
declare i32 @llvm.amdgcn.workitem.id.x()
declare i32 @llvm.amdgcn.workitem.id.y()
declare i32 @llvm.amdgcn.workgroup.id.x()
declare i32 @llvm.amdgcn.workgroup.id.y()

define amdgpu_kernel void @mandelbrot(ptr addrspace(1) %steps, i32 %width, i32 %height, float %left, float %top,
                                      float %pixel, i32 %limit) #0 {
entry:
  %item.x = call i32 @llvm.amdgcn.workitem.id.x()
  %item.y = call i32 @llvm.amdgcn.workitem.id.y()
  %group.x = call i32 @llvm.amdgcn.workgroup.id.x()
  %group.y = call i32 @llvm.amdgcn.workgroup.id.y()
  %first.x = shl i32 %group.x, 5
  %first.y = shl i32 %group.y, 3
  %x = or disjoint i32 %first.x, %item.x
  %y = or disjoint i32 %first.y, %item.y
  %inside.x = icmp ult i32 %x, %width
  %inside.y = icmp ult i32 %y, %height
  %inside = and i1 %inside.x, %inside.y
  br i1 %inside, label %place, label %end

place:
  %x.float = uitofp i32 %x to float
  %y.float = uitofp i32 %y to float
  %across = fmul float %x.float, %pixel
  %down = fmul float %y.float, %pixel
  %c.re = fadd float %left, %across
  %c.im = fadd float %top, %down
  br label %step

step:
  %count = phi i32 [ 0, %place ], [ %count.next, %stays ]
  %re = phi float [ 0.0, %place ], [ %re.next, %stays ]
  %im = phi float [ 0.0, %place ], [ %im.next, %stays ]
  %re.squared = fmul float %re, %re
  %im.squared = fmul float %im, %im
  %size = fadd float %re.squared, %im.squared
  %escaped = fcmp ogt float %size, 4.0
  br i1 %escaped, label %done, label %stays

stays:
  %difference = fsub float %re.squared, %im.squared
  %re.next = fadd float %difference, %c.re
  %re.twice = fadd float %re, %re
  %product = fmul float %re.twice, %im
  %im.next = fadd float %product, %c.im
  %count.next = add i32 %count, 1
  %more = icmp ult i32 %count.next, %limit
  br i1 %more, label %step, label %done

done:
  %result = phi i32 [ %count, %step ], [ %count.next, %stays ]
  %row = mul i32 %y, %width
  %index = add i32 %row, %x
  %at = getelementptr i32, ptr addrspace(1) %steps, i32 %index
  store i32 %result, ptr addrspace(1) %at
  br label %end

end:
  ret void
}

attributes #0 = { "amdgpu-flat-work-group-size"="256,256" "uniform-work-group-size"="true" }
